"""PostgreSQL refuses to run as root; in a user namespace of its own, root is an ordinary user there.

The namespace maps one user: root outside is `nobody` inside. Files stay root's, no folder's mode has to change, and
the process keeps its id (`user_namespaces(7)`).
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

from services.kit.embedded.errors import EmbeddedError

_CLONE_NEWUSER: Final = 0x10000000
_NOBODY: Final = 65534


def drop_root() -> None:
    """Make this process, if it is root's, an ordinary one. It must have a single thread.

    Raises:
        EmbeddedError: the kernel or the container does not permit it.
    """
    if os.geteuid() != 0:
        return
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.unshare(_CLONE_NEWUSER) != 0:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and this system permits no user namespace "
            f"({os.strerror(ctypes.get_errno())}): run Meterscope as an ordinary user, or name DATABASE_URL"
        )
    Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user} 1", encoding="utf-8")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group} 1", encoding="utf-8")
