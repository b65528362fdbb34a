"""PostgreSQL in `D/postgres`: made once, configured at every start."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil

from services.kit import memory
from services.kit.embedded import passwords
from services.kit.embedded.binaries import postgres_program
from services.kit.embedded.errors import EmbeddedError

_LEFTOVERS_SECONDS: Final = 5.0
_LEAST_BUFFERS: Final = 128
_MOST_BUFFERS: Final = 2048

# Why each is as it is: full durability; short waits for dead clients and for transactions left open, since the oldest
# one holds the usage rollup's horizon everywhere. Keys are random, so that after a checkpoint each goes to another page and
# takes that page's image into the log: checkpoints are to be seldom, and to compress what is random costs 80 ms a batch of
# 1,000 and saves nothing (`docs/performance.md`).
_CONFIGURATION: Final = """\
# Written at every start: put your own settings into local.conf.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '{buffers}MB'
max_wal_size = '4GB'
wal_compression = off
fsync = {durable}
full_page_writes = {durable}
synchronous_commit = on
max_prepared_transactions = 0
idle_in_transaction_session_timeout = '30s'
tcp_keepalives_idle = 5
tcp_keepalives_interval = 5
tcp_keepalives_count = 3
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off
"""
_ACCESS: Final = "host all all 127.0.0.1/32 scram-sha-256\n"


def prepare(folder: Path, port: int, *, durable: bool = True) -> list[str]:
    """Make or check `folder/postgres` and return the command that serves it.

    Args:
        folder: the data folder.
        port: listened on at 127.0.0.1.
        durable: wait for the disk. Without it a machine that loses power loses data, a killed process does not.

    Raises:
        EmbeddedError: another version's data, or another user's.
    """
    data = folder / "postgres"
    if data.exists():
        _check_owner(data)
        _check_version(data)
    else:
        _create(folder, data)
    switch = "on" if durable else "off"
    text = _CONFIGURATION.format(port=port, durable=switch, buffers=_buffers(memory.limit()))
    if (data / "local.conf").exists():
        text += "include 'local.conf'\n"
    (data / "postgresql.conf").write_text(text, encoding="utf-8")
    (data / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
    return [str(postgres_program("postgres")), "-D", str(data)]


def _buffers(available: int) -> int:
    """Return the MB of shared buffers: an eighth of the memory, half of what PostgreSQL's manual has for a server of its own.

    Inserts of keys go all over their index: what of it is not in here is copied from the system's cache and back, which
    took a third of PostgreSQL's time. Memory that was not needed yet is not taken.
    """
    return min(max(available // 8 // 2**20, _LEAST_BUFFERS), _MOST_BUFFERS)


def _check_owner(data: Path) -> None:
    owner = data.stat().st_uid
    if owner != os.geteuid():
        raise EmbeddedError(
            f"{data} belongs to user {owner}, this is user {os.geteuid()}: run as that user, or name another data folder"
        )


def _check_version(data: Path) -> None:
    marker = data / "PG_VERSION"
    found = marker.read_text(encoding="utf-8").strip() if marker.is_file() else "unknown"
    wanted = server_version().partition(".")[0]
    if found != wanted:
        raise EmbeddedError(
            f"{data} holds the data of PostgreSQL {found}, this Meterscope runs PostgreSQL {wanted}; nothing was changed: "
            "move the data with pg_dump of the version that wrote it, or name another data folder"
        )


def server_version() -> str:
    """Return the version of the packaged PostgreSQL, such as `18.4`."""
    return _run(postgres_program("postgres"), "--version").split()[-1]


def wait_for_leftovers(folder: Path) -> None:
    """Wait for the backends of a killed server, and end those that stay: a new one must not share memory with them.

    Call it before `drop_root`: from inside a user namespace the processes of others cannot be told.

    Raises:
        EmbeddedError: a server is running on the folder.
    """
    data = folder / "postgres"
    deadline = time.monotonic() + _LEFTOVERS_SECONDS
    while left := [process for process in psutil.process_iter(["cwd", "cmdline"]) if _works_in(data, process)]:
        for process in left:
            if process.info["cmdline"][1:] == ["-D", str(data)]:
                raise EmbeddedError(f"{data} is in use by the PostgreSQL server {process.pid}: stop it first")
            if time.monotonic() > deadline:
                process.kill()
        psutil.wait_procs(left, timeout=0.5)


def _works_in(data: Path, process: psutil.Process) -> bool:
    # A server and its backends have the data folder as their working directory, and "postgres" in their titles.
    return process.info["cwd"] == str(data) and "postgres" in " ".join(process.info["cmdline"] or ())


def _create(folder: Path, data: Path) -> None:
    """Make the cluster beside its place and move it there when it is complete: a kill on the way leaves nothing half."""
    draft = folder / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    words = passwords.load(folder).postgres
    secret = folder / "postgres.password"
    secret.touch(mode=0o600)
    try:
        secret.write_text(words[passwords.SUPERUSER], encoding="utf-8")
        places = ["-D", str(draft), "--pwfile", str(secret)]
        encoding = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        access = ["--username", passwords.SUPERUSER, "--auth=scram-sha-256"]
        _run(postgres_program("initdb"), *places, *encoding, *access, "--no-instructions")
    finally:
        secret.unlink()
    statements = "".join(f"{statement}\n" for name in passwords.SERVICES for statement in _owner(name, words[name]))
    answer = _run(postgres_program("postgres"), "--single", "-D", draft, "postgres", entry=statements)
    if "ERROR:" in answer:
        raise EmbeddedError(f"PostgreSQL could not make its roles and databases: {answer}")
    draft.rename(data)


def _owner(name: str, password: str) -> list[str]:
    """Return what makes a service's role and database. Each statement is one line, as single-user mode wants it."""
    statements = [
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}';",
        f"CREATE DATABASE {name} OWNER {name};",
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;",
    ]
    if name == "usage":
        # Its rollup asks who holds the oldest snapshot, in any database (pg_stat_activity).
        statements.append(f"GRANT pg_read_all_stats TO {name};")
    return statements


def _run(program: Path, *arguments: Path | str, entry: str = "") -> str:
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        [program, *arguments], input=entry, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise EmbeddedError(f"{program.name} failed ({done.returncode}): {done.stdout.strip()}")
    return done.stdout
