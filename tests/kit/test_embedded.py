"""The embedded servers: what is prepared, what is refused, what a kill leaves."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.kit.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey, start_postgres, start_valkey


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = start_postgres(tmp_path_factory.mktemp("own"))
    yield server
    server.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = start_valkey(tmp_path / "a folder")
    yield server
    server.stop()


def _embedded(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.kit.embedded", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def _value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_started_process_is_the_server_itself(server: EmbeddedPostgres) -> None:
    assert Path(psutil.Process(server.pid).cmdline()[0]).name == "postgres"


def test_each_service_owns_a_database_that_the_others_cannot_enter(server: EmbeddedPostgres) -> None:
    for service in ("usage", "billing", "payments", "alerts"):
        with psycopg.connect(server.url(service, service)) as connection:
            connection.execute("CREATE SCHEMA own")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.url("billing", "usage"))


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url("usage", "usage"), password="guess")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("max_prepared_transactions", "0"),
        ("listen_addresses", "127.0.0.1"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
        ("idle_in_transaction_session_timeout", "30s"),
    ],
)
def test_postgresql_is_configured_for_durability(server: EmbeddedPostgres, setting: str, value: str) -> None:
    assert _value(server.url("usage", "usage"), f"SHOW {setting}") == value


def test_the_usage_role_sees_who_holds_a_snapshot_in_any_database(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url("billing", "billing")) as other:
        other.execute("SELECT pg_current_xact_id()")
        seen = _value(
            server.url("usage", "usage"),
            "SELECT backend_xid IS NOT NULL FROM pg_stat_activity WHERE datname = 'billing'",
        )
    assert seen is True


def test_passwords_are_readable_by_their_owner_only(server: EmbeddedPostgres) -> None:
    file = server.folder / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(set(json.loads(file.read_text())["postgres"].values())) == 5  # the superuser's and four services'


def test_no_folder_above_the_data_changes_its_mode(tmp_path: Path) -> None:
    parents = [tmp_path / "closed", tmp_path / "closed" / "data"]
    for folder in parents:
        folder.mkdir(mode=0o700)
    watched = [*parents, *tmp_path.parents]
    before = [folder.stat().st_mode for folder in watched]
    start_postgres(parents[-1], durable=False).stop()
    assert [folder.stat().st_mode for folder in watched] == before
    owners = {file.stat().st_uid for file in parents[-1].rglob("*")}
    assert owners == {os.geteuid()}


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test shows it when the tests are not run by root")
def test_an_ordinary_user_can_run_it() -> None:
    # What is imported before the user changes may lie in folders that only root can read.
    program = (
        "import os, sys; from services.kit.embedded import __main__ as embedded\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "embedded.main(['postgres', '--data-dir', sys.argv[1], '--port', '1'])\n"
    )
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        command = [sys.executable, "-c", program, name]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        owners = {file.stat().st_uid for file in Path(name).rglob("*")}
    # It came to be the server, which as an ordinary user may not listen on port 1.
    assert "could not bind IPv4 address" in ended.stderr
    assert owners == {65534}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)")
def test_root_without_user_namespaces_is_told_what_to_do(tmp_path: Path) -> None:
    embedded = f"{sys.executable} -m services.kit.embedded postgres --data-dir {tmp_path} --port 1"
    # Inside a namespace of its own the test may set the limit to none.
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; exec {embedded}"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == os.EX_CONFIG
    assert "run Meterscope as an ordinary user, or name DATABASE_URL" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_was_committed_survives_a_kill(server: EmbeddedPostgres) -> None:
    url = server.url("payments", "payments")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    server.kill()
    server.start()
    assert _value(url, "SELECT number FROM kept") == 1


def test_sessions_of_a_killed_server_are_gone_before_the_next_one_serves(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url("usage", "usage")) as busy:
        backend = psutil.Process(busy.info.backend_pid)
        server.kill()
        server.start()
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")


def test_a_second_server_on_the_same_folder_is_refused(server: EmbeddedPostgres) -> None:
    refused = _embedded("postgres", "--data-dir", str(server.folder), "--port", "1")
    assert refused.returncode == os.EX_CONFIG
    assert f"in use by the PostgreSQL server {server.pid}" in refused.stderr


def test_data_of_another_version_is_named_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("16\n")
    refused = _embedded("postgres", "--data-dir", str(tmp_path), "--port", "1")
    assert refused.returncode == os.EX_CONFIG
    assert f"{data} holds the data of PostgreSQL 16, this Meterscope runs PostgreSQL 18" in refused.stderr
    assert [file.name for file in tmp_path.rglob("*")] == ["postgres", "PG_VERSION"]


def test_a_preparation_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = start_postgres(tmp_path, durable=False)
    assert _value(server.url("alerts", "alerts"), "SELECT 1") == 1
    assert not half.exists()
    server.stop()


def test_a_server_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from services.kit.embedded import *; import sys, time;"
        "servers = start_postgres(Path(sys.argv[1]), durable=False), start_valkey(Path(sys.argv[1]));"
        "print(*[server.pid for server in servers], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        starter.kill()
    assert psutil.wait_procs(servers, timeout=10)[1] == []


def test_a_port_in_use_is_reported(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        start_postgres(tmp_path, server.port)


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "local.conf").write_text("nonsense yes\n")
    with pytest.raises(EmbeddedError, match=r"did not start: (.|\n)*nonsense"):
        start_valkey(tmp_path)


def test_valkey_keeps_its_data_over_a_stop_and_never_evicts(broker: EmbeddedValkey) -> None:
    with redis.Redis.from_url(broker.url()) as client:
        client.set("kept", "yes")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    broker.stop()
    broker.start()
    with redis.Redis.from_url(broker.url()) as client:
        assert client.get("kept") == b"yes"


def test_valkey_wants_its_password(broker: EmbeddedValkey) -> None:
    with redis.Redis(port=broker.port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
