"""The contract of the usage service."""
