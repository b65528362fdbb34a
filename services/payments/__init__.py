"""Owns payment methods and payments: how customers pay, each attempt at a provider, and what became of it."""
