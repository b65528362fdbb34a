"""How much memory there is to have."""

from pathlib import Path
from typing import Final

import psutil

# Where Linux says how much memory a container may have: the second version of control groups, and the first.
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def limit() -> int:
    """Return how many bytes a process may have: the machine's, or the container's if those are fewer."""
    machine = psutil.virtual_memory().total
    given = (path.read_text().strip() for path in _LIMITS if path.is_file())
    return min([machine, *(int(text) for text in given if text.isdecimal())])
