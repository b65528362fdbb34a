"""What goes wrong with an embedded server."""


class EmbeddedError(Exception):
    """The server cannot run with this folder, user or port. The message says why and what to do."""
