"""The demo's one error."""


class DemoFailed(Exception):
    """Something is not as the input says it must be, or did not happen in time."""
