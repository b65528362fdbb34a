"""Messages to domain and back, a module a noun."""
