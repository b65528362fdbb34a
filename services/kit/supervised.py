"""A process that ends with the one that started it: `python -m services.kit.supervised PARENT MODULE ARGUMENTS…`.

A supervisor that is killed with -9 cannot stop its children any more; the kernel then does it (`prctl(2)`,
PR_SET_PDEATHSIG). The signal comes when the parent's *thread* that started the child ends: start from a thread that
lives as long as the program.
"""

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int, number: signal.Signals) -> None:
    """Have this process get the signal when its parent ends. Only Linux can; elsewhere nothing happens.

    A process that changes its user or user namespace afterwards has to call it again.

    Raises:
        SystemExit: the parent is gone already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        raise SystemExit(f"process {parent}, which started this one, is gone")


def main(arguments: list[str]) -> None:
    """Run a module as `python -m` does, until it or the parent ends; the module gets SIGTERM then."""
    parent, module, *rest = arguments
    end_with(int(parent), signal.SIGTERM)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
