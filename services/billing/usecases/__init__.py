"""What billing does, a module a noun; a use case is one transaction.

Use cases that act once by a request id take the request's message and return the answer's: both are what is stored.
"""
