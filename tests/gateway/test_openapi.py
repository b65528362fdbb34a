import html
import re
import shlex
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from service_doubles import ServiceDouble

from gateway import comments, contract
from meterscope.usage.v1 import event_service_pb2 as pb


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (verb.upper(), path): operation
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    }


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


def test_every_annotated_method_is_in_it(document: dict[str, Any]) -> None:
    expected = {(binding.verb, binding.template.text) for binding in contract.load().bindings}
    # CloudEvents are a format of their own: no annotation can say it.
    assert operations(document).keys() == expected | {("POST", "/v1/events")}
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)


def test_the_contracts_comments_describe_it(document: dict[str, Any]) -> None:
    assert operations(document)[("GET", "/v1/plans/{plan_id}")]["description"] == (
        "Returns a plan. NOT_FOUND if there is none."
    )
    invoice = document["components"]["schemas"]["Invoice"]
    assert invoice["properties"]["total"]["description"] == "`subtotal + tax`."
    for operation in operations(document).values():
        assert operation["summary"]
        assert all(parameter["description"] for parameter in operation["parameters"])
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name


def test_the_described_contract_is_that_of_the_stubs() -> None:
    described = comments.load()
    for method in contract.load().methods.values():
        assert described[method.descriptor.full_name]
        for field in method.descriptor.input_type.fields:
            assert field.full_name in described


def test_schemas_are_those_of_the_json_mapping(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Decimal"]["type"] == "string"
    assert set(schemas["Money"]["properties"]) == {"amount", "currency"}
    assert schemas["InvoiceState"]["enum"][:3] == ["UNSPECIFIED", "DRAFT", "FINALIZED"]
    event = schemas["Event"]
    assert event["required"] == ["id", "source", "type", "time"]
    assert event["properties"]["quantities"]["additionalProperties"] == {"$ref": "#/components/schemas/Decimal"}
    assert schemas["InvoiceLine"]["properties"]["event_count"]["format"] == "int64"
    assert schemas["Customer"]["properties"]["id"]["readOnly"]


def test_parameters_say_where_they_belong(document: dict[str, Any]) -> None:
    usage = operations(document)[("GET", "/v1/customers/{customer_id}/usage")]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in usage][:3] == [
        ("customer_id", "path", True),
        ("meter", "query", True),
        ("start_time", "query", True),
    ]
    payment = operations(document)[("POST", "/v1/payments")]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in payment] == [("Idempotency-Key", "header", True)]


def test_errors_are_problems(document: dict[str, Any]) -> None:
    plan = operations(document)[("GET", "/v1/plans/{plan_id}")]["responses"]
    assert plan["404"] == plan["default"] == {"$ref": "#/components/responses/Problem"}


def test_a_real_problem_is_as_described(client: httpx.Client, document: dict[str, Any]) -> None:
    answer = client.get("/v1/invoices?page_sise=1").json()
    described = document["components"]["schemas"]["Problem"]
    assert set(described["required"]) <= answer.keys() <= described["properties"].keys()


def test_the_documentation_page_shows_every_method(client: httpx.Client, document: dict[str, Any]) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for operation in operations(document).values():
        assert f'id="{operation["operationId"]}"' in page.text
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in page.text


def test_the_documentation_page_works_offline(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert not re.findall(r"<(?:script|link rel=.stylesheet|img|iframe)\b", page.text)
    assert not re.findall(r'(?:src|href)="https?:', page.text)
    targets = set(re.findall(r'href="#([^"]+)"', page.text))
    assert targets <= set(re.findall(r'id="([^"]+)"', page.text))


def test_example_calls_are_taken(
    client: httpx.Client, services: dict[str, ServiceDouble], document: dict[str, Any]
) -> None:
    taken = pb.IngestEventsResponse(results=[pb.EventResult(outcome=pb.OUTCOME_ACCEPTED)])
    services["usage"].answer("IngestEvents", taken)
    calls = re.findall(r"<code>(curl .*?)</code>", client.get("/docs").text, re.DOTALL)
    assert len(calls) == len(operations(document))
    for call in calls:
        words = shlex.split(html.unescape(call).replace("\\\n", ""))
        path = next(word for word in words if word.startswith("http://")).removeprefix("http://127.0.0.1:8080")
        headers = dict(word.split(": ") for word in words if ": " in word and not word.startswith("{"))
        body = words[words.index("-d") + 1] if "-d" in words else None
        if "@calls.csv" in words:
            body = "start,callee\n"
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
        answer = client.request(method, path, content=body, headers=headers)
        assert answer.status_code == 200, (call, answer.text)
