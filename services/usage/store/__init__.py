"""All queries of usage, by noun."""
