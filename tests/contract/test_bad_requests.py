"""Whatever a caller sends, no method answers that the fault is the service's own."""

import random
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from services.alerts import __main__ as alerts
from services.alerts.settings import Settings as AlertsSettings
from services.billing import __main__ as billing
from services.billing.settings import Settings as BillingSettings
from services.kit.channel import open_channel
from services.kit.migrate import migrate
from services.kit.paging import encode_token
from services.kit.settings import read
from services.payments import __main__ as payments
from services.payments.settings import Settings as PaymentsSettings

REQUESTS: Final = 30
# Answers that blame the service or ask for a repeat, which would end likewise. The last one is what a client makes of
# trailers above its limit.
BLAMING: Final = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TEXTS: Final = (
    "",
    "a",
    "\0",
    "a\0b",
    "x" * 257,
    "y" * 12_000,
    "\N{PILE OF POO}" * 3,
    "'; DROP TABLE customers; --",
    "INR",
    "JPY",
    "XAU",
    "UTC",
    "Asia/Kolkata",
    "Factory",
    "sandbox",
    "sandbox_ok",
    "4242 4242 4242 4242",
    "\N{ARABIC-INDIC DIGIT ONE}" * 16,
    "1",
    "-1",
    "0.5",
    "1E+28",
    "1e999999999",
    "NaN",
    "-Infinity",
    "1_000",
    "https://example.invalid/hook",
    "https://a..b/",
    f"https://{'l' * 64}.example/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "http://127.0.0.1:1/",
    "https://user:pass@h/",
    "https://h:99999/",
    "whsec_AAAA",
    "html",
    encode_token(["\0"], {}),
    "é=",
)
NUMBERS: Final = (0, 1, -1, 2, 3, 99, 1_000_000_000, 2**31 - 1, -(2**31))
LONG_NUMBERS: Final = (*NUMBERS, 10**15, 2**63 - 1, -(2**63), 1_780_000_000, 253_402_300_799)
SERVICES: Final = (
    "meterscope.billing.v1.CustomerService",
    "meterscope.billing.v1.CatalogService",
    "meterscope.billing.v1.SubscriptionService",
    "meterscope.billing.v1.BillRunService",
    "meterscope.billing.v1.InvoiceService",
    "meterscope.billing.v1.LedgerService",
    "meterscope.payments.v1.PaymentMethodService",
    "meterscope.payments.v1.PaymentService",
    "meterscope.alerts.v1.AlertService",
    "meterscope.alerts.v1.ChannelService",
    "meterscope.alerts.v1.NotificationService",
)
MODULES: Final = {
    "billing": (billing, BillingSettings),
    "payments": (payments, PaymentsSettings),
    "alerts": (alerts, AlertsSettings),
}


@pytest.fixture(scope="module")
def channels(database_url: str, redis_url: str) -> Iterator[dict[str, grpc.Channel]]:
    """A channel to a server of each service."""
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "METERSCOPE_BILLING_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_PAYMENTS_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_ALERTS_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_ENVIRONMENT": "test",
    }
    servers, opened = [], {}
    for name, (module, kind) in MODULES.items():
        settings: Any = read(kind, environ)
        migrate(settings.database_url, settings.database_schema, module.MIGRATIONS, name)
        servers.append(module.build_server(settings))
        opened[name] = open_channel(f"127.0.0.1:{servers[-1].start()}", settings.kit)
    yield opened
    for channel in opened.values():
        channel.close()
    for server in servers:
        server.stop()


def filled(message: Message, chance: random.Random, depth: int = 0) -> Message:
    """Fill some of a message's fields with what is rarely sent."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.25 or depth > 6:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _put(message, field, chance, depth)
        elif field.is_repeated:
            for _ in range(chance.choice((0, 1, 1, 2, 3))):
                if field.message_type:
                    filled(getattr(message, field.name).add(), chance, depth + 1)
                else:
                    getattr(message, field.name).append(_scalar(field, chance))
        elif field.message_type:
            part = getattr(message, field.name)
            part.SetInParent()
            filled(part, chance, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, chance))
    return message


def _put(message: Message, field: Any, chance: random.Random, depth: int) -> None:
    value = field.message_type.fields_by_name["value"]
    for _ in range(chance.choice((0, 1, 2))):
        entries, key = getattr(message, field.name), chance.choice(TEXTS)
        if value.message_type:
            filled(entries[key], chance, depth + 1)
        else:
            entries[key] = _scalar(value, chance)


def _scalar(field: Any, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = chance.choice(TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice((0.0, -1.5, 1e308, float("nan"), float("inf")))
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice([*(value.number for value in field.enum_type.values), 77])
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return chance.choice([number for number in NUMBERS if number >= 0])
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice(LONG_NUMBERS)
        case _:
            return chance.choice(NUMBERS)


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_makes_a_service_say_that_the_fault_is_its_own(
    channels: dict[str, grpc.Channel], service: str
) -> None:
    for method in descriptor_pool.Default().FindServiceByName(service).methods:
        chance = random.Random(method.full_name)
        for _ in range(REQUESTS):
            request = filled(message_factory.GetMessageClass(method.input_type)(), chance)
            code, details = answer(channels[service.split(".")[1]], method, request)
            assert code not in BLAMING, f"{method.full_name} answers {code}: {details}\n{str(request)[:2000]}"


def answer(channel: grpc.Channel, method: MethodDescriptor, request: Message) -> tuple[grpc.StatusCode, str]:
    """Call a method and say how that ended."""
    call = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    try:
        call(request, timeout=5)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""
