import httpx
import pytest
from service_doubles import ServiceDouble

from gateway.problem import HTTP_STATUSES
from meterscope.usage.v1 import event_service_pb2
from services.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
)


class InvoiceNotFound(NotFound):
    reason = "INVOICE_NOT_FOUND"


def test_a_services_error_is_a_problem(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    error = InvoiceNotFound("there is no invoice inv_1", metadata={"invoice_id": "inv_1"})
    services["billing"].answer("GetInvoice", error)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-Id": "req-1", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    answer = client.get("/v1/invoices/inv_1", headers=headers)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:problem-type:meterscope:invoice-not-found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no invoice inv_1",
        "instance": "/v1/invoices/inv_1",
        "reason": "INVOICE_NOT_FOUND",
        "errors": [],
        "request_id": "req-1",
        "trace_id": trace_id,
        "metadata": {"invoice_id": "inv_1"},
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("x"), 400),
        (FailedPrecondition("x"), 400),
        (Unauthenticated("x"), 401),
        (PermissionDenied("x"), 403),
        (NotFound("x"), 404),
        (AlreadyExists("x"), 409),
        (Aborted("x"), 409),
        (ResourceExhausted("x"), 429),
        (ServiceError("x"), 500),
        (Unavailable("x"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_code_has_its_http_status(
    client: httpx.Client, services: dict[str, ServiceDouble], error: ServiceError, status: int
) -> None:
    services["billing"].answer("GetPlan", error)
    answer = client.get("/v1/plans/p")
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert (answer.json()["reason"], answer.json()["detail"]) == (error.reason, "x")
    assert HTTP_STATUSES[error.status] == status


def test_field_violations_are_told_as_the_caller_knows_them(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    # The body of POST /v1/plans is the plan itself: its caller knows no `plan.`.
    violations = [
        FieldViolation("plan.components[0].per_unit.meter", "is empty"),
        FieldViolation("request_id", "is long"),
    ]
    error = InvalidArgument("plan.components[0].per_unit.meter: is empty", violations=violations)
    services["billing"].answer("CreatePlan", error)
    answer = client.post("/v1/plans", json={"id": "p"}).json()
    assert answer["errors"] == [
        {"field": "components[0].per_unit.meter", "message": "is empty"},
        {"field": "request_id", "message": "is long"},
    ]
    assert answer["detail"] == "components[0].per_unit.meter: is empty"


def test_a_retry_delay_is_told_in_whole_seconds(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    services["usage"].answer("IngestEvents", Unavailable("the database is away", retry_after=1.2))
    answer = client.post("/v1/events:ingest", json={"events": [{}]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["detail"] == "the database is away"


def test_a_fault_of_a_service_says_nothing_of_its_inside(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    services["billing"].answer("GetPlan", RuntimeError("secret of the inside"))
    answer = client.get("/v1/plans/p")
    assert (answer.status_code, answer.json()["reason"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


def test_an_answer_that_is_too_large_is_said_so(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    page = event_service_pb2.ListEventsResponse(events=[event_service_pb2.Event(id="x" * 33 * 1024 * 1024)])
    services["usage"].answer("ListEvents", page)
    answer = client.get("/v1/customers/cus_1/events")
    assert (answer.status_code, answer.json()["reason"]) == (400, "ANSWER_TOO_LARGE")
    assert "smaller page" in answer.json()["detail"]


def test_a_service_that_is_away_is_named(away: str) -> None:
    answer = httpx.get(f"{away}/v1/payments", timeout=30)
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
    assert "payments service is away" in answer.json()["detail"]
    assert "127.0.0.1" not in answer.text
    assert answer.headers["retry-after"] == "1"
