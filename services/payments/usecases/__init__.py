"""What the payments service does, one transaction a use case."""
