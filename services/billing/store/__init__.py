"""All queries of billing, a module a noun. Functions take the caller's connection and never commit."""
