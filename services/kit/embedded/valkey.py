"""Valkey in `D/valkey`: configured at every start."""

from pathlib import Path
from typing import Final

from services.kit.embedded import passwords
from services.kit.embedded.binaries import valkey_server

# Nothing is evicted: jobs are in here. The process title is left alone, so that the process can be told by its command.
_CONFIGURATION: Final = """\
# Written at every start: put your own settings into local.conf.
bind 127.0.0.1
port {port}
requirepass {password}
dir {data}
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
tcp-keepalive 5
set-proc-title no
"""


def prepare(folder: Path, port: int) -> list[str]:
    """Make `folder/valkey` and return the command that serves it on 127.0.0.1."""
    data = folder / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    file = data / "valkey.conf"
    file.touch(mode=0o600)
    text = _CONFIGURATION.format(port=port, password=passwords.load(folder).valkey, data=_quoted(data))
    local = data / "local.conf"
    if local.exists():
        text += f"include {_quoted(local)}\n"
    file.write_text(text, encoding="utf-8")
    return [str(valkey_server()), str(file)]


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
