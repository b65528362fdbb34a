"""Secrets are sent through every service in every way that one thinks of, then looked for wherever telemetry goes.

A plain word is sent along each way too: where it is found, a secret would have been.
"""

import gzip
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pytest
from eventually import eventually
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode
from psycopg import sql

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.supervisor.databases import postgres_url
from meterscope.supervisor.ports import OFFSETS
from tests.e2e.running import Running
from tests.ports import free_ports
from tests.stack.conftest import RealStack
from tests.usage.usage_harness import Client, event

pytestmark = pytest.mark.stack

_NUMBER = secrets.token_hex(8)
# Published test numbers, of two networks and in two spellings; everything else is known by its random part alone.
CARD, SPACED_CARD = "4242424242424242", "5555 5555 5555 4444"
MAIL = f"jane.{secrets.token_hex(8)}@example.org"
KEY = f"sk_test_{secrets.token_hex(12)}"
WORDS = {name: secrets.token_hex(12) for name in ("bearer", "header", "query", "password", "field", "baggage")}
SECRETS = {
    "card": r"4242[ +-]?4242[ +-]?4242[ +-]?4242",
    "spaced card": r"5555(?:[ +-]|%20)?5555(?:[ +-]|%20)?5555(?:[ +-]|%20)?4444",
    "mail": MAIL.partition("@")[0].replace(".", r"\."),
    "key": KEY.removeprefix("sk_test_"),
    **WORDS,
}
# One for each service: what is refused for a fault of ours leaves most behind.
TABLES = {"usage": "quarantine", "billing": "plan_versions", "payments": "payment_methods", "alerts": "channels"}


def marker(service: str) -> str:
    """The plain word that goes along with the secrets, with letters and digits as they have."""
    return f"plain-{service}-{_NUMBER}"


def headers(service: str) -> dict[str, str]:
    """Headers that hold secrets, and make a trace of its own."""
    return {
        "authorization": f"Bearer {WORDS['bearer']}",
        "x-api-key": WORDS["header"],
        "cookie": f"session={WORDS['header']}",
        "user-agent": f"{marker(service)} ({MAIL})",
        "x-request-id": KEY,
        "baggage": f"customer_id={quote(MAIL)},other={WORDS['baggage']}",
    }


def ways(service: str) -> list[tuple[str, str, object]]:
    """(method, path, JSON or text) of calls that a service refuses, each for quoting what it was given."""
    plain, mail = marker(service), quote(MAIL)
    query = f"?access_token={WORDS['query']}&email={mail}&filter={quote(SPACED_CARD)}"
    now = datetime.now(UTC).isoformat()
    identity = {"source": plain, "type": MAIL, "customer_key": MAIL, "time": now}
    row = f"{plain},{MAIL},{CARD},{KEY},password={WORDS['password']},x,x,x"
    everywhere = [("GET", f"/v1/{plain}/{mail}/{CARD}{query}", None), ("DELETE", f"/v1/{mail}", None)]
    own: dict[str, list[tuple[str, str, object]]] = {
        "usage": [
            ("POST", "/v1/events:ingest", {"events": [{**identity, "id": CARD, "attributes": {"password": KEY}}]}),
            ("POST", "/v1/events:ingest", {"events": [{**identity, "id": KEY, "quantities": {"bytes": MAIL}}]}),
            ("POST", "/v1/events:ingest", {"events": [{**identity, "id": "1", "time": SPACED_CARD}]}),
            ("POST", "/v1/events:ingest", {MAIL: KEY}),
            ("POST", "/v1/callRecords:import", f"id,customer,caller,callee\n{row}\n"),
            ("POST", "/v1/meters", {"id": MAIL, "event_type": KEY, "aggregation": CARD}),
            ("GET", f"/v1/customers/{mail}/usageReport{query}&report_id={CARD}", None),
            ("GET", f"/v1/quarantinedEvents?customer_key={mail}", None),
        ],
        "billing": [
            ("POST", "/v1/customers", {"display_name": MAIL, "currency": CARD, "time_zone": f"password={KEY}"}),
            ("POST", "/v1/plans", {"id": MAIL, "display_name": KEY, "currency": SPACED_CARD}),
            ("POST", "/v1/subscriptions", {"customer_id": MAIL, "plan_id": CARD}),
            ("GET", f"/v1/plans{query}&page_token={KEY}", None),
            ("GET", "/v1/plans", None),
        ],
        "payments": [
            ("POST", f"/v1/customers/{mail}/paymentMethods", {"provider": "sandbox", "token": CARD}),
            ("POST", f"/v1/customers/{mail}/paymentMethods", {"provider": MAIL, "token": KEY}),
            ("POST", "/v1/payments", {"customer_id": MAIL, "amount": {"amount": CARD, "currency": KEY}}),
            ("GET", f"/v1/payments/{CARD}{query}", None),
            ("GET", f"/v1/customers/{mail}/paymentMethods{query}", None),
            ("GET", f"/v1/customers/{mail}/paymentMethods", None),
        ],
        "alerts": [
            ("POST", "/v1/channels", {"kind": "WEBHOOK", "display_name": MAIL, "url": f"ftp://{MAIL}:{KEY}@host/"}),
            ("POST", "/v1/channels", {"kind": "WEBHOOK", "display_name": KEY, "secret": f"whsec_{WORDS['field']}"}),
            ("GET", f"/v1/alerts/{CARD}{query}", None),
            ("GET", f"/v1/channels{query}&page_token={KEY}", None),
            ("GET", "/v1/channels", None),
        ],
    }
    return [*everywhere, *own[service]]


@pytest.fixture(scope="module")
def started_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unstartable")


@pytest.fixture(scope="module")
def unstartable(stack: RealStack, started_in: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that tries for half a minute to reach its database, meanwhile the others are sent secrets."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.usage", "serve", "--migrate"],
        env={
            **os.environ,
            "DATABASE_URL": f"postgresql://usage:{WORDS['password']}@127.0.0.1:1/usage",
            "REDIS_URL": f"redis://:{WORDS['password']}@127.0.0.1:1/0",
            "METERSCOPE_USAGE_ADDRESS": f"127.0.0.1:{free_ports()}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.endpoint,
            "LOG_DIR": str(started_in),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def sent(stack: RealStack, up: Running, unstartable: "subprocess.Popen[str]") -> None:
    """Everything was sent: with all tables in place, and once more with one missing."""
    assert unstartable.poll() is None
    port = up.port + OFFSETS["postgres"]
    with httpx.Client(base_url=f"http://{up.run['gateway']}", timeout=30) as rest:
        for service, table in TABLES.items():
            statuses = {call(rest, service, *way) for way in ways(service)}
            # They were looked at and refused: none is a fault, and none was stopped at the door.
            assert {400, 404} <= statuses <= {200, 400, 404, 405}, (service, statuses)
            with psycopg.connect(postgres_url(up.data_dir, port, service), autocommit=True) as connection:
                names = {"schema": sql.Identifier(service), "here": sql.Identifier(table)}
                connection.execute(sql.SQL("ALTER TABLE {schema}.{here} RENAME TO away").format(**names))
                statuses = {call(rest, service, *way) for way in ways(service)}
                connection.execute(sql.SQL("ALTER TABLE {schema}.away RENAME TO {here}").format(**names))
            assert 500 in statuses, (service, statuses)
    signalled(up)
    metered(up)
    traced(stack)


def call(rest: httpx.Client, service: str, method: str, path: str, body: object) -> int:
    given = {"content": body} if isinstance(body, str) else {"json": body}
    kind = {"content-type": "text/csv"} if isinstance(body, str) else {}
    answer = rest.request(method, path, headers={**headers(service), **kind}, **(given if body else {}))  # type: ignore[arg-type]
    return answer.status_code


def signalled(up: Running) -> None:
    """An alert that quotes secrets goes to the log channel."""
    with up.channel("alerts") as channel:
        request = alert_service_pb2.RaiseSignalRequest(
            type="system_error",
            severity=alert_service_pb2.SEVERITY_ERROR,
            title=f"{marker('signal')}: card {CARD} of {MAIL}",
            message=f"postgresql://billing:{WORDS['password']}@db/billing refused {KEY}",
            fingerprint=f"redaction:{_NUMBER}",
            labels={"api_key": WORDS["field"], "mail": MAIL},
            service="tests",
            request_id=secrets.token_hex(8),
        )
        request.data["password"] = WORDS["password"]
        alert_service_pb2_grpc.AlertServiceStub(channel).RaiseSignal(request, timeout=10)


def metered(up: Running) -> None:
    """A meter whose name is plain counts an event whose attributes are secrets."""
    with up.channel("usage") as channel:
        usage = Client.on(channel)
        usage.create_meter(f"plain-{_NUMBER}", event_type="redaction.step")
        customer = usage.put_customer()
        attributes = {"card": CARD, "mail": MAIL, "password": WORDS["password"]}
        assert usage.outcomes(event(customer, type="redaction.step", attributes=attributes)) == ["ACCEPTED"]


def traced(stack: RealStack) -> None:
    """Somebody else's program, which redacts nothing itself, sends a failed span whose every text is a secret."""
    provider = TracerProvider(resource=Resource.create({"service.name": "other-sender"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=stack.endpoint, insecure=True)))
    name = f"{marker('other')} {MAIL} {CARD} password={WORDS['password']}"
    with provider.get_tracer("tests").start_as_current_span(name, attributes={"key": KEY, "cookie": KEY}) as span:
        span.add_event(f"redis://:{WORDS['password']}@redis refused {SPACED_CARD}", {"text": f"pwd={WORDS['field']}"})
        span.set_status(
            StatusCode.ERROR, f"Cookie: session={WORDS['header']}; Bearer {WORDS['bearer']} of {MAIL}, {KEY}"
        )
    provider.shutdown()


def files(up: Running) -> Iterator[tuple[str, str]]:
    """(name, text) of all that the processes write: spans, log files, standard output."""
    folder = up.data_dir.parent
    for path in (folder / "traces.jsonl", *(folder / "log-files").glob("*.log*"), *(up.data_dir / "logs").iterdir()):
        data = path.read_bytes()
        yield str(path.relative_to(folder)), (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def leaks(text: str) -> list[str]:
    return [name for name, pattern in SECRETS.items() if re.search(pattern, text)]


@pytest.mark.usefixtures("sent")
def test_the_search_finds_what_was_sent_beside_the_secrets(stack: RealStack, up: Running) -> None:
    def arrived() -> bool:
        held = stack.everything()
        in_traces = all(marker(sender) in held["Jaeger"] for sender in (*TABLES, "other"))
        return in_traces and marker("signal") in held["Loki"] and f"plain-{_NUMBER}" in held["Prometheus"]

    eventually(arrived, seconds=90)
    written = dict(files(up))
    assert all(marker(service) in written["traces.jsonl"] for service in TABLES)
    assert marker("signal") in written["log-files/alerts-worker.combined.log"]
    assert marker("signal") in written["data/logs/alerts-worker.log"]
    # And a secret that nobody takes out is one that the search finds.
    assert set(leaks(json.dumps([CARD, SPACED_CARD, MAIL, KEY, *WORDS.values()]))) == set(SECRETS)


@pytest.mark.usefixtures("sent")
def test_no_secret_is_in_any_backend(stack: RealStack) -> None:
    held = stack.everything()
    assert {name: leaks(text) for name, text in held.items()} == {name: [] for name in held}


@pytest.mark.usefixtures("sent")
def test_no_secret_is_in_any_file(up: Running) -> None:
    written = dict(files(up))
    assert len(written) > 20  # spans, nine processes' logs on standard output and in files
    assert {name: found for name, text in written.items() if (found := leaks(text))} == {}


def test_a_process_that_cannot_start_does_not_show_its_passwords(
    unstartable: "subprocess.Popen[str]", started_in: Path
) -> None:
    stdout, stderr = unstartable.communicate(timeout=100)
    assert unstartable.returncode == 1
    assert "the database does not answer" in stderr
    texts = [stdout, stderr, *(path.read_text() for path in started_in.glob("*.log"))]
    assert not [text for text in texts if leaks(text)]
