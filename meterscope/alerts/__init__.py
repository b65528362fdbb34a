"""The contract of the alerts service."""
