"""Plumbing that every service shares and that knows no domain: nothing here says customer, meter or invoice."""
