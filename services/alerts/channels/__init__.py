"""The ways in which people are told. Each takes a message and says what came of it; none raises for a receiver's fault."""
