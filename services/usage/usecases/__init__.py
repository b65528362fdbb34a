"""What usage does, a use case a function or class, by noun."""
