"""The contract of the billing service."""
