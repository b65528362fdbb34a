from datetime import UTC, datetime
from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from services.kit.redacted_spans import RedactedSpans
from services.kit.redaction import has_check_digit, is_card_number, is_secret_name, redact, redact_value

# Published test numbers that pass the Luhn check; with …4241 the first does not.
CARD = "4242 4242 4242 4242"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("could not reach postgresql://user:hunter2@db/usage", ["hunter2"]),
        ("could not reach postgresql://user:hun/ter@2@db/usage", ["hun/ter", "ter@2"]),
        ("sent to https://f00ba4@errors.example/1", ["f00ba4"]),
        ("posted to https://hooks.slack.com/services/T0/B0/f00ba4", ["f00ba4"]),
        ("posted to https://discord.com/api/webhooks/1/f00ba4", ["f00ba4"]),
        ("login failed, password=hunter2", ["hunter2"]),
        ('{"password": "a long phrase"}', ["a long phrase", "phrase"]),
        ('{"body": "{\\"password\\": \\"hunter2\\"}"}', ["hunter2"]),
        ("('x-api-key', 'hunter2')", ["hunter2"]),
        ("[(b'authorization', b'hunter2')]", ["hunter2"]),
        ("GET /v1/events?access_token=hunter2&page=2", ["hunter2"]),
        ('api_key: "hunter2"', ["hunter2"]),
        ("client_secret=hunter2", ["hunter2"]),
        ("could not log in: user=meter pwd=hunter2", ["hunter2"]),
        ("Server=db;Uid=meter;Pwd=hunter2;", ["hunter2"]),
        ("dsn=https://f00ba4@errors.example/1", ["f00ba4", "errors.example"]),
        ('DSN: "host=db user=meter password=hunter2"', ["hunter2", "host=db"]),
        ("cookie=f00ba4", ["f00ba4"]),
        ("Cookie: session=f00ba4; csrf=ba4f00", ["f00ba4", "ba4f00"]),
        ("Set-Cookie: session=f00ba4; Path=/; HttpOnly", ["f00ba4"]),
        ('{"set-cookie": "session=f00ba4; Path=/"}', ["f00ba4"]),
        ("[(b'cookie', b'session=f00ba4; csrf=ba4f00')]", ["f00ba4", "ba4f00"]),
        ("authorization: Bearer eyJhbGciOi.eyJzdWIi", ["eyJhbGciOi", "eyJzdWIi"]),
        ("got eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl instead", ["eyJzdWIi", "c2lnbmF0dXJl"]),
        ("mail to person@example.org bounced", ["person@example.org"]),
        ("GET /v1/customers?email=jürgen.o%40example.org", ["example.org", "jürgen"]),
        (f"card {CARD} declined", [CARD]),
        ("card 4242424242424242.", ["4242424242424242"]),
        ("pan=4242+4242+4242+4242&x=1", ["4242+4242"]),
        ("pan_378282246310005", ["378282246310005"]),
        ("pan=+378282246310005", ["378282246310005"]),
        ("paid with 4242424242424242-1226-123", ["4242424242424242"]),
        ("paid with 4242 4242 4242 4242 12/26 123", ["4242 4242"]),
        ("attempt 5 4242 4242 4242 4242 123", ["4242 4242"]),
        ("pan=4242%204242%204242%204242%2012", ["4242%204242"]),
        ("key sk_test_abcdef123456 refused", ["sk_test_abcdef123456"]),
        ("signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
        ("DETAIL:  Failing row contains (1, hunter2, (x), null).", ["hunter2", "(x)"]),
        ("DETAIL:  Key (display_name)=(hunter2) already exists.", ["hunter2"]),
        ('CONTEXT:  COPY events, line 3, column quantity: "hunter2"', ["hunter2"]),
    ],
)
def test_secrets_go_and_what_was_redacted_stays(text: str, secrets: list[str]) -> None:
    redacted = redact(text)
    assert not [secret for secret in secrets if secret in redacted], redacted
    assert "[redacted" in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "trace 4242424242424241",  # no card: the check digit is wrong
        "sum 3480555124 bytes",
        "at 1700000000008",  # milliseconds; passes the Luhn check, but no card begins with 1
        "price 4242424242424242.5",
        "call to +4915112345678",  # E.164; passes the Luhn check, as one number in ten does
        "call to +4915112345678 12 s",
        "IMEI 354264530512544",  # a device's, which always passes the Luhn check
        "IMEI 490154203237518",
        "device 35-209900-176148-1",
        "event 42424242-4242-4242-8242-424242424242",
        "outbox obx_0192f0c1d2e37aaabbbccccddddeeee0",
        "GET http://127.0.0.1:8080/v1/customers",
        "tokens: 5, passwordless",
        "meterscope.usage.v1.EventService/IngestEvents",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_text_takes_no_long_time() -> None:
    # Each of these made a careless expression try every start with every end.
    texts = (
        "a" * 100_000,
        "a.b-" * 25_000 + "@",
        "4" * 100_000,
        "4 " * 50_000 + "a",
        "://a:" * 20_000,
        "token" * 20_000,
    )
    for text in (*texts, "cookie" * 20_000, "1-" * 50_000):
        assert redact(text) == text


def test_values_of_any_shape_are_redacted() -> None:
    class Opaque:
        def __str__(self) -> str:
            return "person@example.org"

    now = datetime(2026, 11, 21, tzinfo=UTC)
    found = redact_value(
        {
            "api_key": "hunter2",
            "list": ["person@example.org", 7, {"client_secret": ["x"]}],
            "person@example.org": 1,
            "card": 4242424242424242,
            "object": Opaque(),
            "bytes": b"person@example.org",
            "amount": Decimal("12.50"),
            "at": now,
            "none": None,
        }
    )
    assert found == {
        "api_key": "[redacted]",
        "list": ["[redacted e-mail]", 7, {"client_secret": "[redacted]"}],
        "[redacted e-mail]": 1,
        "card": "[redacted card]",
        "object": "[redacted e-mail]",
        "bytes": "b'[redacted e-mail]'",
        "amount": Decimal("12.50"),
        "at": now,
        "none": None,
    }


def test_names_of_secrets_are_known() -> None:
    assert all(
        map(
            is_secret_name,
            ["password", "db.password", "X-Api-Key", "access_token", "set-cookie", "sentry_dsn", "db_pwd"],
        )
    )
    assert not any(map(is_secret_name, ["tokens", "customer_id", "design", "company"]))


# Numbers that the networks and payment providers publish for tests.
@pytest.mark.parametrize(
    "digits",
    [
        "4222222222222",  # Visa of 13
        "4111111111111111",
        "4000000000000000006",  # Visa of 19
        "5555555555554444",  # Mastercard
        "2223003122003222",
        "378282246310005",  # American Express
        "340000000000009",
        "180012345678905",  # JCB of 15
        "3566002020360505",
        "30569309025904",  # Diners Club
        "6011111111111117",  # Discover
        "6200000000000005",  # UnionPay
        "6205500000000000004",
        "6759649826438453",  # Maestro
        "2200000000000004",  # Mir
    ],
)
def test_card_numbers_of_every_network_are_known(digits: str) -> None:
    assert is_card_number(digits)
    assert not is_card_number(digits[:-1] + str((int(digits[-1]) + 1) % 10))


@pytest.mark.parametrize(
    "digits",
    [
        "42",
        "354264530512544",  # a device's (IMEI)
        "490154203237518",
        "1700000000008",  # milliseconds
        "9000000000000001",  # no network's
        "42424242424242420000",  # too long
    ],
)
def test_numbers_that_no_network_issues_are_no_cards(digits: str) -> None:
    assert not is_card_number(digits)


def test_a_check_digit_is_right_or_wrong_whoever_the_number_is_of() -> None:
    assert has_check_digit("490154203237518")
    assert not has_check_digit("490154203237519")


def test_spans_leave_without_secrets_and_else_as_they_were() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RedactedSpans(exporter)))
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span("parent"):
        attributes = {"url.path": "/v1/customers/person@example.org", "api_key": "hunter2", "n": 1, "l": ["a", CARD]}
        with tracer.start_as_current_span("GET person@example.org", attributes=attributes) as span:
            span.record_exception(ValueError(f"no card: {CARD}"))
            span.set_status(StatusCode.ERROR, "password=hunter2")
        with tracer.start_as_current_span("plain", attributes={"rpc.method": "a/b", "l": ["a", "b"]}):
            pass
    secret, plain, parent = exporter.get_finished_spans()
    assert secret.name == "GET [redacted e-mail]"
    assert dict(secret.attributes or {}) == {
        "url.path": "/v1/customers/[redacted e-mail]",
        "api_key": "[redacted]",
        "n": 1,
        "l": ("a", "[redacted card]"),
    }
    assert "4242 4242" not in secret.to_json()
    assert secret.status.description == "password=[redacted]"
    assert secret.context.trace_id == parent.context.trace_id
    assert secret.parent is not None
    assert secret.parent.span_id == parent.context.span_id
    assert dict(plain.attributes or {}) == {"rpc.method": "a/b", "l": ("a", "b")}
