import json
from typing import Any
from urllib.parse import quote

import httpx
from google.protobuf.descriptor import Descriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import contract
from gateway.contract import Binding

BINDINGS = contract.load().bindings
FROM_ABSENT_SERVICES = {501, 503}


def names(descriptor: Descriptor | None, depth: int = 4) -> set[str]:
    """The names of the fields that a body can hold, so that random JSON gets further than its first key."""
    if descriptor is None or depth == 0:
        return {"x"}
    found = {field.name for field in descriptor.fields} | {"amount", "currency"}
    for field in descriptor.fields:
        if field.message_type is not None:
            found |= names(field.message_type, depth - 1)
    return found


KEYS = {binding: st.sampled_from(sorted(names(binding.body_type))) for binding in BINDINGS}
PLAUSIBLE = st.sampled_from(
    ["12.5", "INR", "2026-01-31T18:30:00Z", "SUM", "ACTIVE", "-1e400", "\ud800", "", 0, 2**70, 1.5]
)
BYTES = st.text(max_size=8).map(lambda text: text.encode(errors="replace")) | st.binary(min_size=1, max_size=4)


def values(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        PLAUSIBLE | st.none() | st.booleans() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


BODIES = {
    binding: st.dictionaries(keys, values(keys), max_size=5).map(lambda value: json.dumps(value).encode()) | st.binary()
    for binding, keys in KEYS.items()
    if binding.body
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[Binding, str, bytes]:
    binding = draw(st.sampled_from(BINDINGS))
    path = binding.template.text
    for variable in binding.template.variables:
        path = path.replace(f"{{{variable}}}", quote(draw(BYTES), safe="") or "x")
    parameters = [field.name for field in binding.method.descriptor.input_type.fields] or ["x"]
    query = draw(st.dictionaries(st.sampled_from(parameters), BYTES, max_size=3))
    path += "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    return binding, path, draw(BODIES[binding]) if binding.body else b""


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(request=requests())
def test_whatever_is_sent_is_answered_and_never_a_fault_of_ours(
    client: httpx.Client, request: tuple[Binding, str, bytes]
) -> None:
    binding, path, body = request
    answer = client.request(binding.verb, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500 or answer.status_code in FROM_ABSENT_SERVICES, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    target=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]),
    value=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
    header=st.sampled_from(
        ["traceparent", "tracestate", "baggage", "x-request-id", "idempotency-key", "content-type", "origin"]
    ),
)
def test_any_path_and_header_is_answered(
    client: httpx.Client, target: str, method: str, value: str, header: str
) -> None:
    url = httpx.URL(scheme="http", host=client.base_url.host, port=client.base_url.port, raw_path=f"/{target}".encode())
    answer = client.request(method, url, headers={header.encode(): value.strip().encode("latin-1")})
    assert answer.status_code < 500
