"""A file sent by REST: passed on part by part as it comes, its options in the query."""

import http.client
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from google.protobuf.message import Message
from running_gateway import running
from service_doubles import ServiceDouble

from gateway.settings import Settings
from meterscope.usage.v1 import call_record_service_pb2 as pb
from services.kit.errors import InvalidArgument, ResourceExhausted
from services.kit.streams import StreamIdle

IMPORT = "/v1/callRecords:import"
CSV = {"content-type": "text/csv; charset=utf-8"}


def joined(requests: list[Message]) -> bytes:
    return b"".join(request.chunk for request in requests)  # type: ignore[attr-defined]


def test_the_body_is_passed_on_and_the_query_goes_first(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    services["usage"].answer("ImportCallRecords", pb.ImportCallRecordsResponse(rows=2, accepted=2, delimiter=";"))
    query = "?customer_key=acme&delimiter=;&columns=callee=To&columns=start_time=At&layout=HEADER&timeZone=Asia/Kolkata"
    answer = client.post(IMPORT + query, content=b"At;To\n1;2\n", headers={**CSV, "idempotency-key": "night-1"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["rows"], answer.json()["delimiter"]) == ("2", ";")
    first, *rest = services["usage"].last.request
    expected = pb.ImportCallRecordsRequest(
        customer_key="acme",
        delimiter=";",
        columns=["callee=To", "start_time=At"],
        layout=pb.CALL_RECORD_LAYOUT_HEADER,
        time_zone="Asia/Kolkata",
        request_id="night-1",
    )
    assert first == expected
    assert joined(rest) == b"At;To\n1;2\n"
    assert services["usage"].last.metadata["x-meterscope-transport"] == "rest"


def test_a_body_above_the_limit_of_json_goes_through_in_parts(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    part = b"x" * (1 << 20)

    def parts() -> Iterator[bytes]:
        yield from itertools.repeat(part, 40)

    answer = client.post(IMPORT, content=parts(), headers=CSV)
    assert answer.status_code == 200, answer.text
    requests = services["usage"].last.request
    # 40 MiB in one piece would be above the 32 MiB of a message.
    assert sum(len(request.chunk) for request in requests) == 40 << 20
    assert max(len(request.chunk) for request in requests) <= 1 << 20


def test_an_early_refusal_is_told_with_its_field(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    services["usage"].answer("ImportCallRecords", InvalidArgument.at("time_zone", "is none", reason="BAD_ZONE"))
    answer = client.post(IMPORT, content=itertools.repeat(b"x" * 65536, 160), headers=CSV)
    assert answer.status_code == 400, answer.text
    assert answer.json()["reason"] == "BAD_ZONE"
    assert answer.json()["errors"] == [{"field": "time_zone", "message": "is none"}]


def test_too_many_imports_are_told_as_such(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    services["usage"].answer(
        "ImportCallRecords", ResourceExhausted("4 run", reason="TOO_MANY_IMPORTS", retry_after=1.0)
    )
    answer = client.post(IMPORT, content=b"", headers=CSV)
    assert (answer.status_code, answer.json()["reason"]) == (429, "TOO_MANY_IMPORTS"), answer.text
    assert answer.headers["retry-after"] == "1"


@pytest.fixture
def impatient(settings: Settings) -> Iterator[str]:
    """A gateway that waits 0.3 s for what is to come."""
    with running(replace(settings, kit=replace(settings.kit, stream_idle=timedelta(seconds=0.3)))) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "content_type", "part"),
    [(IMPORT, "text/csv", b"At;To\n"), ("/v1/customers", "application/json", b'{"external_key": ')],
)
def test_a_body_that_stands_still_is_given_up(impatient: str, path: str, content_type: str, part: bytes) -> None:
    connection = http.client.HTTPConnection(httpx.URL(impatient).netloc.decode(), timeout=20)
    connection.putrequest("POST", path)
    connection.putheader("content-type", content_type)
    connection.putheader("content-length", "1000")
    connection.endheaders(part)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["reason"]) == (408, "BODY_STALLED")
    assert answer.headers["connection"] == "close"
    connection.close()


def test_a_service_that_gives_a_still_body_up_first_is_told_alike(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    services["usage"].answer("ImportCallRecords", StreamIdle(60))
    answer = client.post(IMPORT, content=b"x", headers=CSV)
    assert (answer.status_code, answer.json()["reason"]) == (408, "BODY_STALLED"), answer.text


def test_other_content_and_unknown_options_are_refused(client: httpx.Client) -> None:
    as_json = client.post(IMPORT, json={"x": 1})
    assert (as_json.status_code, as_json.json()["reason"]) == (415, "NOT_CSV")
    packed = client.post(IMPORT, content=b"x", headers={**CSV, "content-encoding": "gzip"})
    assert (packed.status_code, packed.json()["reason"]) == (415, "ENCODED")
    unknown = client.post(f"{IMPORT}?colour=red", content=b"x", headers=CSV)
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (400, "colour")
    in_query = client.post(f"{IMPORT}?chunk=eA==", content=b"x", headers=CSV)
    assert (in_query.status_code, in_query.json()["errors"][0]["field"]) == (400, "chunk")


def test_a_service_that_is_away_is_told_as_such(away: str) -> None:
    answer = httpx.post(f"{away}{IMPORT}", content=b"a,b\n", headers=CSV)
    assert answer.status_code == 503


def test_the_documentation_shows_the_file(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"][IMPORT]["post"]
    assert list(operation["requestBody"]["content"]) == ["text/csv"]
    named = {parameter["name"] for parameter in operation["parameters"]}
    assert {"customer_key", "time_zone", "Idempotency-Key"} <= named
    assert "chunk" not in named
