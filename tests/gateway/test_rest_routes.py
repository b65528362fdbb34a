from urllib.parse import quote

import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from service_doubles import ServiceDouble

from gateway import contract
from gateway.contract import Binding
from meterscope.billing.v1 import bill_run_service_pb2, invoice_service_pb2
from meterscope.usage.v1 import report_service_pb2, usage_service_pb2

BINDINGS = contract.load().bindings


def name_of(binding: Binding) -> str:
    return binding.method.descriptor.full_name


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_every_annotated_method_is_reached_by_its_route(
    client: httpx.Client, services: dict[str, ServiceDouble], binding: Binding
) -> None:
    path = binding.template.text
    for variable in binding.template.variables:
        path = path.replace(f"{{{variable}}}", f"the-{variable}")
    if binding.is_stream:
        answer = client.request(binding.verb, path, content=b"a,b\n", headers={"content-type": "text/csv"})
    else:
        answer = client.request(binding.verb, path, json={} if binding.body else None)
    assert answer.status_code == 200, answer.text
    call = services[binding.method.service].last
    assert call.method == binding.method.descriptor.name
    for variable in binding.template.variables:
        assert getattr(call.request, variable) == f"the-{variable}"


def test_methods_without_an_annotation_have_no_route() -> None:
    served = {name_of(binding) for binding in BINDINGS}
    internal = {
        "meterscope.usage.v1.UsageService.SealUsage",
        "meterscope.usage.v1.LimitService.PutEntitlements",
        "meterscope.billing.v1.InvoiceService.RecordPayment",
        "meterscope.alerts.v1.AlertService.RaiseSignal",
    }
    assert internal <= contract.load().methods.keys()
    assert not internal & served


def test_a_custom_verb_wins_over_a_variable(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    client.get("/v1/invoices/inv_1:render")
    assert services["billing"].last.method == "RenderInvoice"
    assert services["billing"].last.request.invoice_id == "inv_1"


def test_an_id_may_hold_what_separates_paths_when_it_is_encoded(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    event_id = "a/b:c d é%2F"
    client.get(f"/v1/customers/cus_1/events/{quote(event_id, safe='')}", params={"source": "web"})
    assert services["usage"].last.request.event_id == event_id


def test_query_parameters_fill_fields_under_both_names(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    query = "meter=bytes&startTime=2026-01-01T00:00:00Z&end_time=2026-02-01T05:30:00%2B05:30&window=DAY"
    assert client.get(f"/v1/customers/cus_1/usage?{query}").status_code == 200
    asked = services["usage"].last.request
    assert (asked.customer_id, asked.meter) == ("cus_1", "bytes")
    assert asked.start_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert asked.end_time.ToJsonString() == "2026-02-01T00:00:00Z"
    assert asked.window == usage_service_pb2.WINDOW_DAY


def test_a_query_reaches_decimals_numbers_and_enums(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    client.get("/v1/customers/cus_1/limits/bytes:check?quantity=12.50")
    assert services["usage"].last.request.quantity.value == "12.50"
    client.get("/v1/invoices?state=INVOICE_STATE_PAID&page_size=7")
    assert services["billing"].last.request.state == invoice_service_pb2.INVOICE_STATE_PAID
    assert services["billing"].last.request.page_size == 7


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("page_sise=1", "page_sise", "UNKNOWN_FIELD"),
        ("page_size=x", "page_size", "WRONG_TYPE"),
        ("page_size=", "page_size", "WRONG_TYPE"),
        ("page_size=1&page_size=2", "page_size", "GIVEN_TWICE"),
        ("state=LOST", "state", "WRONG_TYPE"),
        ("state.x=1", "state", "UNKNOWN_FIELD"),
    ],
)
def test_a_wrong_query_parameter_is_named(client: httpx.Client, query: str, field: str, reason: str) -> None:
    answer = client.get(f"/v1/invoices?{query}")
    assert answer.status_code == 400
    assert answer.json()["reason"] == reason
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_query_cannot_say_what_the_path_or_the_body_says(client: httpx.Client) -> None:
    assert client.get("/v1/invoices/inv_1?invoice_id=inv_2").json()["reason"] == "GIVEN_TWICE"
    answer = client.post("/v1/customers?customer.currency=INR", json={"display_name": "A"})
    assert answer.json()["errors"] == [{"field": "customer.currency", "message": "belongs in the body"}]
    assert client.post("/v1/billRuns?request_id=1").json()["reason"] == "UNKNOWN_FIELD"


@pytest.mark.parametrize("query", ["page_token=%ff", "%ff=1"])
def test_a_query_that_is_not_utf8_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/invoices?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_UTF8")


def test_a_path_that_is_not_utf8_is_refused(client: httpx.Client) -> None:
    answer = client.get("/v1/invoices/%ff")
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_UTF8")
    assert answer.json()["errors"][0]["field"] == "invoice_id"


def test_a_document_is_passed_on_as_it_is(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    services["billing"].answer("RenderInvoice", HttpBody(content_type="text/html; charset=utf-8", data=b"<h1>5</h1>"))
    answer = client.get("/v1/invoices/inv_1:render?format=html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == b"<h1>5</h1>"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_document_that_an_answer_carries_is_the_whole_answer(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    document = HttpBody(content_type="text/csv; charset=utf-8", data=b"date,meter\r\n")
    services["usage"].answer("GetUsageReport", report_service_pb2.UsageReport(customer_id="cus_1", document=document))
    answer = client.get("/v1/customers/cus_1/usageReport?format=csv")
    assert services["usage"].last.request.format == "csv"
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == b"date,meter\r\n"
    services["usage"].answer("GetUsageReport", report_service_pb2.UsageReport(customer_id="cus_1"))
    assert client.get("/v1/customers/cus_1/usageReport").json()["customer_id"] == "cus_1"


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
    for path in ("/v1/nothing", "/v1/customers/", "/v1/customers//usage", "/V1/customers"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "NO_SUCH_ROUTE")


def test_a_wrong_method_names_the_right_ones(client: httpx.Client) -> None:
    answer = client.delete("/v1/customers")
    assert (answer.status_code, answer.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert client.post("/health").status_code == 405
    assert client.post("/health").headers["allow"] == "GET, HEAD"


def test_head_asks_without_the_body(client: httpx.Client) -> None:
    answer = client.head("/v1/customers")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_idempotency_key_is_the_request_id(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    client.post("/v1/customers", json={"display_name": "A"}, headers={"Idempotency-Key": "key-1"})
    assert services["billing"].last.request.request_id == "key-1"
    client.post("/v1/billRuns", headers={"Idempotency-Key": '"key-2"'})
    assert services["billing"].last.request == bill_run_service_pb2.StartBillRunRequest(request_id="key-2")
    client.post("/v1/billRuns", json={"request_id": "key-3"}, headers={"Idempotency-Key": "key-3"})
    assert services["billing"].last.request.request_id == "key-3"
    client.post("/v1/customers?request_id=key-4", json={"display_name": "A"})
    assert services["billing"].last.request.request_id == "key-4"


def test_two_different_request_ids_are_refused(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    answer = client.post("/v1/billRuns", json={"request_id": "a"}, headers={"Idempotency-Key": "b"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "GIVEN_TWICE")
    assert services["billing"].calls == []


def test_an_idempotency_key_is_printable_and_short(client: httpx.Client) -> None:
    for key in ("", "a b", "k" * 257):
        answer = client.post("/v1/billRuns", headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Idempotency-Key")


def test_the_request_id_goes_in_and_out(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    answer = client.get("/v1/customers", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert services["billing"].last.metadata["x-request-id"] == "mine-1"
    made = client.get("/v1/customers", headers={"X-Request-Id": "not (good)"})
    assert len(made.headers["x-request-id"]) == 32
    assert services["billing"].last.metadata["x-request-id"] == made.headers["x-request-id"]


def test_the_callers_trace_goes_on(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.get("/v1/customers", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert services["billing"].last.metadata["traceparent"].split("-")[1] == trace_id
