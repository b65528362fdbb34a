"""The gRPC entry: decode, one use case, encode; a module for each service of the contract."""
