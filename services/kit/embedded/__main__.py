"""`python -m services.kit.embedded postgres|valkey --data-dir D --port N`: prepare the folder, then be the server."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from services.kit.embedded import postgres, valkey
from services.kit.embedded.errors import EmbeddedError
from services.kit.embedded.unprivileged import drop_root
from services.kit.supervised import end_with


def main(arguments: list[str]) -> NoReturn:
    """Become the server, or exit with 78 (EX_CONFIG) and the reason on stderr."""
    options = _parser().parse_args(arguments)
    folder = options.data_dir.resolve()
    fast_stop = signal.SIGINT if options.server == "postgres" else signal.SIGTERM
    try:
        if options.server == "postgres":
            postgres.wait_for_leftovers(folder)
            drop_root()
            command = postgres.prepare(folder, options.port, durable=not options.no_fsync)
        else:
            command = valkey.prepare(folder, options.port)
    except (EmbeddedError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(os.EX_CONFIG)
    if options.parent is not None:
        end_with(options.parent, fast_stop)
    if options.port_fd is not None:
        os.set_inheritable(options.port_fd, False)
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - the packaged program, no shell wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.kit.embedded")
    parser.add_argument("server", choices=["postgres", "valkey"])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the data; it must exist")
    parser.add_argument("--port", type=int, required=True, help="listened on at 127.0.0.1")
    parser.add_argument("--port-fd", type=int, help="a socket that holds the port; closed when the server takes over")
    parser.add_argument("--parent", type=int, help="process id; the server stops when that process ends")
    parser.add_argument("--no-fsync", action="store_true", help="for tests: survives a kill, not a power cut")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
