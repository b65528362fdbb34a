"""CloudEvents 1.0 over HTTP: what reaches the service, and what is refused with which field."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_doubles import ServiceDouble

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.errors import Unavailable

STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def event(**given: Any) -> dict[str, Any]:
    fields = {"specversion": "1.0", "id": "e1", "source": "/web", "type": "t", "subject": "acme"}
    return {name: value for name, value in (fields | given).items() if value != "absent"}


def accept(services: dict[str, ServiceDouble], *outcomes: pb.Outcome.ValueType, **given: str) -> None:
    results = [
        pb.EventResult(index=index, outcome=outcome, **(given if outcome != pb.OUTCOME_ACCEPTED else {}))  # type: ignore[arg-type]
        for index, outcome in enumerate(outcomes or [pb.OUTCOME_ACCEPTED])
    ]
    services["usage"].answer("IngestEvents", pb.IngestEventsResponse(results=results))


def sent(services: dict[str, ServiceDouble]) -> pb.Event:
    assert services["usage"].last.metadata["x-meterscope-transport"] == "cloudevents"
    (only,) = services["usage"].last.request.events
    assert isinstance(only, pb.Event)
    return only


def numbers(message: pb.Event) -> dict[str, str]:
    return {name: message.quantities[name].value for name in message.quantities}


def test_a_structured_event_goes_one_to_one(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    given = event(
        time="2026-01-31T18:30:00.5+05:30",
        datacontenttype="application/json",
        dataschema="https://example.com/s",
        region="eu",
        sequence=7,
        internal=True,
        unset=None,
        traceparent=TRACEPARENT,
        tracestate="a=b",
        data={"bytes": 4321, "path": "/a", "cached": False, "note": None, "request": {"ms": 1.5, "size": {"kb": 2}}},
    )
    answer = client.post("/v1/events", json=given, headers=STRUCTURED)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
    message = sent(services)
    assert (message.id, message.source, message.type) == ("e1", "/web", "t")
    assert (message.customer_key, message.customer_id, message.trace_id) == ("acme", "", TRACE)
    assert message.time.ToJsonString() == "2026-01-31T13:00:00.500Z"
    assert numbers(message) == {"bytes": "4321", "request.ms": "1.5", "request.size.kb": "2"}
    assert dict(message.attributes) == {
        "path": "/a",
        "cached": "false",
        "region": "eu",
        "sequence": "7",
        "internal": "true",
        "dataschema": "https://example.com/s",
    }


def test_numbers_keep_all_their_digits(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    texts = ["1.10", "1234567890123456.789012345678", "0.1", "1e3", "9" * 5000, "-0.5"]
    data = ",".join(f'"q{index}": {text}' for index, text in enumerate(texts))
    body = json.dumps(event(data="DATA")).replace('"DATA"', f"{{{data}}}")
    assert client.post("/v1/events", content=body, headers=STRUCTURED).status_code == 200
    assert list(dict(sorted(numbers(sent(services)).items())).values()) == texts


def test_a_customer_id_is_told_from_a_key(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    client.post("/v1/events", json=event(subject="cus_1"), headers=STRUCTURED)
    assert (sent(services).customer_id, sent(services).customer_key) == ("cus_1", "")


def test_an_event_without_a_time_happened_when_it_came(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    accept(services)
    before = datetime.now(UTC)
    client.post("/v1/events", json=event(), headers=STRUCTURED)
    assert before <= sent(services).time.ToDatetime(UTC) <= datetime.now(UTC)
    accept(services, pb.OUTCOME_CONFLICT, reason="CONFLICT", field="id", message="stored otherwise")
    again = client.post("/v1/events", json=event(), headers=STRUCTURED)
    assert again.status_code == 409
    assert "does not say when it happened" in again.json()["detail"]


def test_bare_data_is_called_data(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    client.post("/v1/events", json=event(data=1.5), headers=STRUCTURED)
    assert numbers(sent(services)) == {"data": "1.5"}
    client.post("/v1/events", json=event(data="text"), headers=STRUCTURED)
    assert dict(sent(services).attributes) == {"data": "text"}


def test_an_extension_whose_name_data_has_is_kept_aside(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    accept(services)
    client.post("/v1/events", json=event(region="eu", zone="z1", data={"region": "us", "zone": 5}), headers=STRUCTURED)
    assert dict(sent(services).attributes) == {"region": "us", "ce-region": "eu", "zone": "z1"}
    assert numbers(sent(services)) == {"zone": "5"}
    clash = event(region="eu", data={"region": "us", "ce-region": "x"})
    answer = client.post("/v1/events", json=clash, headers=STRUCTURED)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "region")


def test_a_binary_event_is_headers_and_data(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    headers = {
        "ce-specversion": "1.0",
        "CE-ID": "Euro%20%e2%82%AC%20%F0%9F%98%80",
        "ce-source": '"a \\"quoted\\" one%21"',
        "ce-type": "t",
        "ce-subject": "cus_1",
        "ce-time": "2026-01-31t18:30:00z",
        "ce-region": "eu",
        "ce-sequence": "7",
        "ce-traceparent": TRACEPARENT,
        "content-type": "application/vnd.acme+json; charset=utf-8",
    }
    assert client.post("/v1/events", content=b'{"bytes": 1.10}', headers=headers).status_code == 200
    message = sent(services)
    assert (message.id, message.source, message.customer_id) == ("Euro € 😀", 'a "quoted" one!', "cus_1")
    assert (message.time.ToJsonString(), message.trace_id) == ("2026-01-31T18:30:00Z", TRACE)
    assert (numbers(message), dict(message.attributes)) == ({"bytes": "1.10"}, {"region": "eu", "sequence": "7"})


def test_a_binary_event_needs_no_data(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services)
    headers = {f"ce-{name}": value for name, value in event().items()}
    assert client.post("/v1/events", headers=headers).status_code == 200
    assert not sent(services).quantities


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"ce-id": "%C0%A0"}, "INVALID_UTF8", "ce-id"),
        ({"ce-id": "100%"}, "BAD_PERCENT_ENCODING", "ce-id"),
        ({"ce-id": b"\xe9"}, "BAD_CHARACTER", "ce-id"),
        ({"ce-id": "%00"}, "BAD_CHARACTER", "ce-id"),
        ({"ce-id": ""}, "MISSING", "ce-id"),
        ({"ce-specversion": "0.3"}, "UNSUPPORTED_SPECVERSION", "ce-specversion"),
        ({"ce-datacontenttype": "application/json"}, "GIVEN_TWICE", "ce-datacontenttype"),
        ({"ce-my-own": "x"}, "BAD_NAME", "ce-my-own"),
        ({"ce-data": "x"}, "BAD_NAME", "ce-data"),
        ({"ce-time": "yesterday"}, "WRONG_TYPE", "ce-time"),
        ({"ce-traceparent": "00-0-0-0"}, "BAD_TRACE_ID", "ce-traceparent"),
    ],
)
def test_a_wrong_header_is_named(client: httpx.Client, changed: dict[str, Any], reason: str, field: str) -> None:
    headers = {f"ce-{name}": value for name, value in event().items()} | changed
    answer = client.post("/v1/events", content=b"{}", headers={"content-type": "application/json", **headers})
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_header_given_twice_is_refused(client: httpx.Client) -> None:
    headers = [*((f"ce-{name}", value) for name, value in event().items()), ("ce-id", "e2")]
    answer = client.post("/v1/events", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "ce-id")


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"specversion": "2.0"}, "UNSUPPORTED_SPECVERSION", "specversion"),
        ({"specversion": 1.0}, "WRONG_TYPE", "specversion"),
        ({"specversion": "absent"}, "MISSING", "specversion"),
        ({"id": "absent"}, "MISSING", "id"),
        ({"id": 7}, "WRONG_TYPE", "id"),
        ({"source": ""}, "MISSING", "source"),
        ({"type": None}, "MISSING", "type"),
        ({"type": ["t"]}, "WRONG_TYPE", "type"),
        ({"subject": "absent"}, "MISSING", "subject"),
        ({"subject": "a\nb"}, "BAD_CHARACTER", "subject"),
        ({"id": "\ud800"}, "BAD_CHARACTER", "id"),
        ({"time": 1767225600}, "WRONG_TYPE", "time"),
        ({"time": "2026-13-01T00:00:00Z"}, "WRONG_TYPE", "time"),
        ({"time": ""}, "WRONG_TYPE", "time"),
        ({"traceparent": TRACE}, "BAD_TRACE_ID", "traceparent"),
        ({"traceparent": 5}, "WRONG_TYPE", "traceparent"),
        ({"Region": "eu"}, "BAD_NAME", "Region"),
        ({"region": {"a": 1}}, "WRONG_TYPE", "region"),
        ({"ratio": 1.5}, "WRONG_TYPE", "ratio"),
        ({"data_base64": "AAAA"}, "BINARY_DATA", "data_base64"),
        ({"datacontenttype": "text/xml", "data": "<a/>"}, "UNSUPPORTED_DATA", "datacontenttype"),
        ({"datacontenttype": "application/json; charset=latin1", "data": {}}, "UNSUPPORTED_DATA", "datacontenttype"),
        ({"datacontenttype": 5, "data": {}}, "WRONG_TYPE", "datacontenttype"),
        ({"data": [1, 2]}, "WRONG_TYPE", "data"),
        ({"data": {"a": {"b": [1]}}}, "WRONG_TYPE", "data.a.b"),
        ({"data": {"a": {"b": 1}, "a.b": "x"}}, "GIVEN_TWICE", "data.a.b"),
        ({"data": {"": 1}}, "MISSING", "data"),
        ({"data": {"a": "\ud800"}}, "WRONG_TYPE", "data.a"),
        ({"data": {"\ud800": 1}}, "WRONG_TYPE", "data.\\ud800"),
    ],
)
def test_a_wrong_event_is_a_problem_that_names_the_field(
    client: httpx.Client, services: dict[str, ServiceDouble], changed: dict[str, Any], reason: str, field: str
) -> None:
    body = json.dumps(event(**changed))
    answer = client.post("/v1/events", content=body, headers=STRUCTURED)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert services["usage"].calls == []
    batch = client.post("/v1/events", content=f"[{body}]", headers=BATCH).json()
    assert [(each["outcome"], each["reason"], each["field"]) for each in batch["results"]] == [
        ("REJECTED", reason, field)
    ]


def test_all_faults_are_told_at_once(client: httpx.Client) -> None:
    answer = client.post("/v1/events", json={"time": 5}, headers=STRUCTURED).json()
    assert [error["field"] for error in answer["errors"]] == ["specversion", "id", "source", "type", "subject", "time"]


def test_deep_data_is_refused(client: httpx.Client) -> None:
    data: Any = 1
    for _ in range(17):
        data = {"a": data}
    answer = client.post("/v1/events", json=event(data=data), headers=STRUCTURED)
    assert (answer.status_code, answer.json()["reason"]) == (400, "TOO_DEEP")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b'{"id": NaN}', "INVALID_JSON"),
        (b"\xff", "INVALID_UTF8"),
        (b'{"id": "a", "id": "b"}', "DUPLICATE_KEY"),
        (b"[]", "WRONG_TYPE"),
        (b"[" * 5000, "INVALID_JSON"),
    ],
)
def test_what_is_no_event_is_refused(client: httpx.Client, body: bytes, reason: str) -> None:
    answer = client.post("/v1/events", content=body, headers=STRUCTURED)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "application/cloudevents+avro"},
        {"content-type": "application/cloudevents+json; charset=iso-8859-1"},
        {"content-type": "text/plain", "ce-id": "e1"},
        {"content-type": "application/json", "content-encoding": "gzip", "ce-id": "e1"},
    ],
)
def test_other_types_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/v1/events", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_batch_is_answered_event_by_event(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    # The service sees the first and the last one, and refuses the last.
    accept(
        services, pb.OUTCOME_ACCEPTED, pb.OUTCOME_REJECTED, reason="NEGATIVE", field="quantities.n", message="-1 is …"
    )
    batch = [event(id="a"), event(id="b", subject=None), 5, event(id="d", data={"n": -1})]
    answer = client.post("/v1/events", json=batch, headers=BATCH)
    assert answer.status_code == 200
    assert [(each["index"], each["outcome"], each["field"]) for each in answer.json()["results"]] == [
        (0, "ACCEPTED", ""),
        (1, "REJECTED", "subject"),
        (2, "REJECTED", ""),
        (3, "REJECTED", "data.n"),
    ]
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, 3)
    assert [each.id for each in services["usage"].last.request.events] == ["a", "d"]


def test_an_empty_batch_is_nothing_to_do(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    answer = client.post("/v1/events", json=[], headers=BATCH)
    assert (answer.status_code, answer.json()["results"]) == (200, [])
    assert services["usage"].calls == []


def test_a_batch_has_its_bound(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services, *[pb.OUTCOME_ACCEPTED] * 10_000)
    batch = [event(id=str(number)) for number in range(10_001)]
    assert client.post("/v1/events", json=batch[:-1], headers=BATCH).json()["accepted"] == 10_000
    answer = client.post("/v1/events", json=batch, headers=BATCH)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BATCH_SIZE")
    assert "10,001 events" in answer.json()["detail"]
    answer = client.post("/v1/events", json=event(), headers=BATCH)
    assert (answer.status_code, answer.json()["reason"]) == (400, "WRONG_TYPE")


def test_a_body_has_its_bound(client: httpx.Client) -> None:
    answer = client.post("/v1/events", content=b" " * ((32 << 20) + 1), headers=STRUCTURED)
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("quantities.bytes", "data.bytes"),
        ("attributes", "data"),
        ("customer_key", "ce-subject"),
        ("trace_id", "ce-traceparent"),
        ("type", "ce-type"),
    ],
)
def test_what_the_service_refuses_is_told_in_the_callers_words(
    client: httpx.Client, services: dict[str, ServiceDouble], field: str, shown: str
) -> None:
    accept(services, pb.OUTCOME_REJECTED, reason="WRONG", field=field, message="is wrong")
    answer = client.post("/v1/events", headers={f"ce-{name}": value for name, value in event().items()})
    assert (answer.status_code, answer.json()["reason"]) == (400, "WRONG")
    assert answer.json()["errors"] == [{"field": shown, "message": "is wrong"}]


def test_what_is_held_is_taken(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accept(services, pb.OUTCOME_QUARANTINED, reason="UNKNOWN_CUSTOMER", field="customer_key", message="held")
    answer = client.post("/v1/events", json=event(), headers=STRUCTURED)
    assert (answer.status_code, answer.json()["results"][0]["outcome"]) == (200, "QUARANTINED")


def test_a_service_that_is_away_says_when_to_come_back(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    services["usage"].answer("IngestEvents", Unavailable("the database is away", retry_after=3))
    answer = client.post("/v1/events", json=event(), headers=STRUCTURED)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


def test_only_post_is_allowed(client: httpx.Client) -> None:
    answer = client.get("/v1/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["detail"] == "GET is not allowed here; use POST"


NAMES = st.sampled_from(
    ["specversion", "id", "source", "type", "subject", "time", "data", "traceparent", "datacontenttype", "x"]
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from(["1.0", "\ud800", "a.b", TRACEPARENT]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(NAMES | st.text(max_size=3), ANYTHING, max_size=4))
def test_whatever_an_event_holds_is_answered(
    client: httpx.Client, services: dict[str, ServiceDouble], changed: dict[str, Any]
) -> None:
    accept(services)
    answer = client.post("/v1/events", content=json.dumps([event() | changed]), headers=BATCH)
    assert (answer.status_code, len(answer.json()["results"])) == (200, 1), answer.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=NAMES,
    value=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
)
def test_whatever_a_header_holds_is_answered(
    client: httpx.Client, services: dict[str, ServiceDouble], name: str, value: str
) -> None:
    accept(services)
    headers = {f"ce-{each}": text for each, text in event().items()} | {
        f"ce-{name}": value.strip(" ").encode("latin-1")
    }
    assert client.post("/v1/events", headers=headers).status_code in {200, 400}
