"""Reports on a customer's usage."""
