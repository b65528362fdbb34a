"""Why Meterscope does not run."""


class SupervisorError(Exception):
    """It cannot run, or not go on. The message says why and what to do."""
