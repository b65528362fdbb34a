import json

import httpx
import pytest
from google.type.decimal_pb2 import Decimal
from google.type.interval_pb2 import Interval
from google.type.money_pb2 import Money
from service_doubles import ServiceDouble

from meterscope.alerts.v1 import alert_service_pb2
from meterscope.billing.v1 import catalog_service_pb2, invoice_service_pb2, ledger_service_pb2
from meterscope.payments.v1 import payment_service_pb2
from meterscope.usage.v1 import event_service_pb2, limit_service_pb2

JSON = {"content-type": "application/json"}


def test_an_event_is_read_under_either_kind_of_name(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    event = {
        "id": "e1",
        "source": "web",
        "type": "http.request",
        "customer_key": "10.0.0.1",
        "time": "2026-01-31T18:30:00.123456789Z",
        "quantities": {"bytes": "1024.5"},
        "attributes": {"path": "/é"},
    }
    camel = {("customerKey" if name == "customer_key" else name): value for name, value in event.items()}
    assert client.post("/v1/events:ingest", json={"events": [event, camel]}).status_code == 200
    first, second = services["usage"].last.request.events
    assert first == second
    expected = event_service_pb2.Event(
        id="e1",
        source="web",
        type="http.request",
        customer_key="10.0.0.1",
        quantities={"bytes": Decimal(value="1024.5")},
        attributes={"path": "/é"},
    )
    expected.time.FromJsonString("2026-01-31T18:30:00.123456789Z")
    assert first == expected


def test_enum_values_are_read_with_and_without_their_prefix(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    for name in ("SUM", "AGGREGATION_SUM"):
        client.post("/v1/meters", json={"id": "bytes", "aggregation": name})
        assert services["usage"].last.request.meter.aggregation == 2


def test_money_is_read_exactly(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    # -12.05 is -12 units and -50,000,000 nanos: both carry the sign.
    amounts = {
        "12.5": (12, 500_000_000),
        "-12.05": (-12, -50_000_000),
        "0.000000001": (0, 1),
        "1.100000000000": (1, 10**8),
    }
    for text, (units, nanos) in amounts.items():
        answer = client.post("/v1/payments", json={"amount": {"amount": text, "currency": "INR"}})
        assert answer.status_code == 200, answer.text
        read = services["payments"].last.request.payment.amount
        assert read == Money(currency_code="INR", units=units, nanos=nanos)


def test_null_is_the_same_as_absent(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    client.post(
        "/v1/plans", json={"id": "p", "limits": None, "components": [{"id": "c", "flat_fee": None, "per_unit": {}}]}
    )
    component = services["billing"].last.request.plan.components[0]
    assert component.WhichOneof("charge") == "per_unit"
    assert not services["billing"].last.request.plan.limits


def test_output_only_fields_may_be_sent_back(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    client.post("/v1/customers", json={"id": "cus_1", "state": "ACTIVE", "display_name": "A", "currency": "INR"})
    assert services["billing"].last.request.customer.id == "cus_1"


@pytest.mark.parametrize(
    ("path", "body", "reason", "field", "hint"),
    [
        ("/v1/customers", {"displayname": "A"}, "UNKNOWN_FIELD", "displayname", "did you mean `display_name`?"),
        ("/v1/customers", {"xyz": 1}, "UNKNOWN_FIELD", "xyz", "known are `id`, `external_key`"),
        ("/v1/customers", {"display_name": 7}, "WRONG_TYPE", "display_name", "a number is given; send a string"),
        ("/v1/customers", {"display_name": ["A"]}, "WRONG_TYPE", "display_name", "an array is given"),
        ("/v1/customers", {"state": "HAPPY"}, "WRONG_TYPE", "state", "is not one of UNSPECIFIED, PENDING, ACTIVE"),
        ("/v1/customers", {"state": 2}, "WRONG_TYPE", "state", "2 is not one of"),
        ("/v1/customers", {"create_time": "yesterday"}, "WRONG_TYPE", "create_time", "RFC 3339"),
        ("/v1/customers", {"create_time": 5}, "WRONG_TYPE", "create_time", "RFC 3339"),
        ("/v1/customers", {"create_time": "2026-13-01T00:00:00Z"}, "WRONG_TYPE", "create_time", "RFC 3339"),
        # Read by the letter these would be other times, hours or days away.
        *(
            ("/v1/customers", {"create_time": time}, "WRONG_TYPE", "create_time", "RFC 3339")
            for time in (
                "2026-11-21T10:00:00+99:00",
                "2026-11-21T10:00:00+05:99",
                "2026-11-21T10:00:00+05:3",
                "2026-11-21T10:00:00+1_0:0_0",
                "2026-11-21T10:00:00+ 5:30",
                "2026-11-21T10:00:00-\u0660\u0665:30",
                "2026-11-21T10:00:00.1_2Z",
                "2026-11-21T10:00:00.Z",
                "2026-1-1T1:2:3Z",
                "2026-11-21T10:00:00Z\n",
            )
        ),
        ("/v1/customers", {"display_name": "\ud800"}, "WRONG_TYPE", "display_name", "surrogate"),
        ("/v1/customers", {"display_name": "A", "displayName": "B"}, "GIVEN_TWICE", "displayName", "`display_name`"),
        ("/v1/events:ingest", {"events": [{"id": "1"}, {"idd": "2"}]}, "UNKNOWN_FIELD", "events[1].idd", "`id`"),
        ("/v1/events:ingest", {"events": {}}, "WRONG_TYPE", "events", "an object is given; send an array"),
        ("/v1/events:ingest", {"events": [None]}, "WRONG_TYPE", "events[0]", "null is given; send an object"),
        ("/v1/events:ingest", {"events": [{"quantities": {"b": 5}}]}, "WRONG_TYPE", "events[0].quantities.b", '"12.5"'),
        ("/v1/events:ingest", {"events": [{"quantities": []}]}, "WRONG_TYPE", "events[0].quantities", "an array"),
        ("/v1/events:ingest", {"events": [{"attributes": {"a": 1}}]}, "WRONG_TYPE", "events[0].attributes.a", "string"),
        ("/v1/payments", {"amount": {"amount": 12.5, "currency": "INR"}}, "WRONG_TYPE", "amount", "decimal string"),
        ("/v1/payments", {"amount": {"amount": "1e3", "currency": "INR"}}, "WRONG_TYPE", "amount", "decimal string"),
        ("/v1/payments", {"amount": {"amount": "1"}}, "WRONG_TYPE", "amount", '"currency": "INR"'),
        ("/v1/payments", {"amount": "12.50 INR"}, "WRONG_TYPE", "amount", '"currency": "INR"'),
        (
            "/v1/payments",
            {"amount": {"amount": "0.1234567891", "currency": "INR"}},
            "WRONG_TYPE",
            "amount",
            "has 10 decimals; at most 9",
        ),
        ("/v1/plans", {"limits": [{"thresholds": [80, 2**31]}]}, "WRONG_TYPE", "limits[0].thresholds[1]", "outside"),
        ("/v1/plans", {"limits": [{"thresholds": [1.5]}]}, "WRONG_TYPE", "limits[0].thresholds[0]", "whole number"),
        (
            "/v1/plans",
            {"components": [{"flat_fee": {}, "per_unit": {}}]},
            "GIVEN_TWICE",
            "components[0].per_unit",
            "one",
        ),
        ("/v1/payments", {"payment": {}}, "UNKNOWN_FIELD", "payment", "send its fields bare"),
    ],
)
def test_a_wrong_field_is_named_with_what_to_send(
    client: httpx.Client,
    services: dict[str, ServiceDouble],
    path: str,
    body: object,
    reason: str,
    field: str,
    hint: str,
) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (400, reason), problem
    assert [error["field"] for error in problem["errors"]] == [field]
    assert hint in problem["errors"][0]["message"]
    assert problem["detail"].startswith(f"{field}: ")
    assert all(not double.calls for double in services.values())


def test_all_faults_are_told_at_once(client: httpx.Client) -> None:
    answer = client.post("/v1/customers", json={"display_name": 1, "currency": 2, "zone": "UTC"})
    assert [error["field"] for error in answer.json()["errors"]] == ["display_name", "currency", "zone"]
    assert answer.json()["detail"].endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "INVALID_JSON"),
        (b"[]", "WRONG_TYPE"),
        (b'"text"', "WRONG_TYPE"),
        (b"{} {}", "INVALID_JSON"),
        (b'{"display_name": NaN}', "INVALID_JSON"),
        (b'{"display_name": "a", "display_name": "a"}', "DUPLICATE_KEY"),
        (b'{"display_name": "\xff"}', "INVALID_UTF8"),
        (b'\xef\xbb\xbf{"display_name": "a"}', "INVALID_JSON"),
        (b"[" * 100_000, "INVALID_JSON"),
        (b'{"display_name": ' + b"1" * 5_000 + b"}", "INVALID_JSON"),
        (b"", "BODY_REQUIRED"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, content: bytes, reason: str) -> None:
    answer = client.post("/v1/customers", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)


def test_a_get_takes_no_body(client: httpx.Client) -> None:
    answer = client.request("GET", "/v1/customers", content=b"{}", headers=JSON)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BODY_NOT_ALLOWED")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_content_type_is_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/v1/customers", content=b'{"display_name": "A"}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"] or "plain JSON" in answer.json()["detail"]


def test_json_with_its_charset_is_taken(client: httpx.Client) -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    assert client.post("/v1/customers", content=b'{"display_name": "A"}', headers=headers).status_code == 200


def test_a_body_above_the_limit_is_refused(client: httpx.Client) -> None:
    content = b" " * (32 * 1024 * 1024 + 1)
    answer = client.post("/v1/customers", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")
    chunked = client.post("/v1/customers", content=iter([content[: 2**24]] * 3), headers=JSON)
    assert (chunked.status_code, chunked.json()["reason"]) == (413, "BODY_TOO_LARGE")


def test_a_full_batch_is_taken(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    events = [{"id": f"e{number}", "source": "web", "attributes": {"n": str(number)}} for number in range(10_000)]
    assert client.post("/v1/events:ingest", json={"events": events}, timeout=30).status_code == 200
    assert len(services["usage"].last.request.events) == 10_000


def test_an_invoice_is_written_with_every_field(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    invoice = invoice_service_pb2.Invoice(
        id="inv_1",
        state=invoice_service_pb2.INVOICE_STATE_PAID,
        period=Interval(),
        total=Money(currency_code="INR", units=1234, nanos=500_000_000),
        tax=Money(currency_code="JPY", units=-7),
    )
    invoice.period.start_time.FromJsonString("2026-01-01T00:00:00Z")
    invoice.lines.add(id="1", quantity=Decimal(value="3480555124"), event_count=2**53 + 1)
    services["billing"].answer("GetInvoice", invoice)
    written = client.get("/v1/invoices/inv_1").json()
    assert written["state"] == "PAID"
    assert written["period"] == {"start_time": "2026-01-01T00:00:00Z"}
    assert written["total"] == {"amount": "1234.50", "currency": "INR"}
    assert written["tax"] == {"amount": "-7", "currency": "JPY"}
    assert (written["number"], written["payment_id"]) == ("", "")
    assert "amount_due" not in written
    line = written["lines"][0]
    assert (line["quantity"], line["event_count"]) == ("3480555124", "9007199254740993")
    assert (line["kind"], line["sample_trace_ids"]) == ("UNSPECIFIED", [])


def test_structs_maps_doubles_and_booleans_are_written(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    alert = alert_service_pb2.Alert(labels={"b": "2", "a": "1"}, action_required=True)
    alert.data.update({"percentage": 100.5, "nested": {"list": [1, None, "x"]}})
    services["alerts"].answer("GetAlert", alert)
    written = client.get("/v1/alerts/alr_1").json()
    assert written["data"] == {"percentage": 100.5, "nested": {"list": [1, None, "x"]}}
    assert (written["labels"], written["action_required"]) == ({"a": "1", "b": "2"}, True)
    limits = limit_service_pb2.CheckLimitResponse(percentage=99.87, kind=limit_service_pb2.LIMIT_KIND_HARD)
    services["usage"].answer("CheckLimit", limits)
    written = client.get("/v1/customers/c/limits/m:check").json()
    assert (written["percentage"], written["kind"], written["allowed"]) == (99.87, "HARD", False)


def test_an_answer_can_be_sent_back_as_a_request(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    plan = catalog_service_pb2.Plan(id="web-inr", currency="INR", interval=catalog_service_pb2.BILLING_INTERVAL_MONTH)
    base = plan.components.add(id="base", display_name="Base fee")
    base.flat_fee.amount.CopyFrom(Money(currency_code="INR", units=499))
    tiers = plan.components.add(id="requests").graduated
    tiers.tiers.add(up_to=Decimal(value="200"), unit_price=Decimal(value="0.5"))
    tiers.tiers.add(unit_price=Decimal(value="0.25"))
    plan.limits.add(meter="requests", thresholds=[80, 100])
    services["billing"].answer("GetPlan", plan)
    written = client.get("/v1/plans/web-inr").json()
    assert client.post("/v1/plans", json=written).status_code == 200
    assert services["billing"].last.request.plan == plan


def test_amounts_have_the_decimals_of_their_currency(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    accounts = ledger_service_pb2.ListAccountsResponse()
    for code, units, nanos in (("KWD", 1, 500_000_000), ("JPY", 5, 0), ("INR", 0, -10_000_000), ("XYZ", 2, 0)):
        accounts.accounts.add(balance=Money(currency_code=code, units=units, nanos=nanos))
    services["billing"].answer("ListAccounts", accounts)
    written = client.get("/v1/ledger/accounts").json()["accounts"]
    assert [account["balance"]["amount"] for account in written] == ["1.500", "5", "-0.01", "2"]


def test_a_state_this_gateway_does_not_know_is_its_number(
    client: httpx.Client, services: dict[str, ServiceDouble]
) -> None:
    payment = payment_service_pb2.Payment.FromString(b"\x30\x63")  # field 6 (state) is 99
    services["payments"].answer("GetPayment", payment)
    assert client.get("/v1/payments/pay_1").json()["state"] == 99
