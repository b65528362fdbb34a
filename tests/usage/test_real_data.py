"""Real data, metered with several meters each, against numbers that are counted here, without the service.

Two LLM traces and three access logs (examples/, with their licences): 40,091 events, and calls from a seeded generator.
What the publishers' rows add up to stands in examples/*/README.md and is compared as well, so that both countings would
have to be wrong alike.
"""

import csv
import gzip
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import grpc
import pytest
from calling import Caller
from eventually import eventually
from usage_harness import Client, event, utc

from examples.calls.made_up_calls import calls, write
from meterscope.callimport import create_meters
from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from services.kit.settings import read
from services.usage.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH = 5_000
TENANTS = 7
COMPLETION, REQUEST = "llm.completion", "web.request"
TRACES = {"code": "azure-llm-code.csv.gz", "conv": "azure-llm-conv.csv.gz"}
LOGS = {
    "semicomplete": ("http-apache-elastic.log.gz", "UTC"),
    "secrepo-2021": ("http-secrepo-2021-10-22.log.gz", "America/Los_Angeles"),
    "secrepo-2022": ("http-secrepo-2022-12-22.log.gz", "America/Los_Angeles"),
}
# Client, time and zone, status, size: all that is counted here. The request may hold escaped quotes.
LINE = re.compile(r'^(\S+) \S+ \S+ \[([^ \]]+) ([+-]\d{4})\] "(?:[^"\\]|\\.)*" (\d{3}) (\d+|-)')

Filter, Operator = meters_pb.MeterFilter, meters_pb.FilterOperator
METERS = (
    meters_pb.Meter(id="completions", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_COUNT),
    meters_pb.Meter(id="context", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_SUM, quantity="context"),
    meters_pb.Meter(id="generated", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_SUM, quantity="generated"),
    meters_pb.Meter(id="longest", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_MAX, quantity="context"),
    meters_pb.Meter(id="shortest", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_MIN, quantity="context"),
    meters_pb.Meter(id="mean", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_AVG, quantity="generated"),
    meters_pb.Meter(id="last", event_type=COMPLETION, aggregation=meters_pb.AGGREGATION_LATEST, quantity="generated"),
    meters_pb.Meter(
        id="code-context",
        event_type=COMPLETION,
        aggregation=meters_pb.AGGREGATION_SUM,
        quantity="context",
        filters=[Filter(attribute="service", operator=Operator.FILTER_OPERATOR_EQUALS, values=["code"])],
    ),
    meters_pb.Meter(id="requests", event_type=REQUEST, aggregation=meters_pb.AGGREGATION_COUNT),
    meters_pb.Meter(id="bytes", event_type=REQUEST, aggregation=meters_pb.AGGREGATION_SUM, quantity="bytes"),
    meters_pb.Meter(id="clients", event_type=REQUEST, aggregation=meters_pb.AGGREGATION_UNIQUE, attribute="client"),
    meters_pb.Meter(id="by-status", event_type=REQUEST, aggregation=meters_pb.AGGREGATION_COUNT, group_by=["status"]),
    meters_pb.Meter(
        id="errors",
        event_type=REQUEST,
        aggregation=meters_pb.AGGREGATION_COUNT,
        filters=[Filter(attribute="status", operator=Operator.FILTER_OPERATOR_GREATER_OR_EQUAL, values=["400"])],
    ),
)


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    """The oldest of the data is of May 2015."""
    return read(Settings, environment | {"METERSCOPE_USAGE_ACCEPT_DAYS": "20000"})


def rows(service: str) -> Iterator[tuple[datetime, int, int]]:
    """A trace's requests: when, context tokens, generated tokens."""
    with gzip.open(EXAMPLES / "llm-traces" / TRACES[service], "rt", newline="") as file:
        for row in csv.DictReader(file):
            # Seven digits behind the second: the last, a tenth of a microsecond, is cut off.
            time = datetime.strptime(row["TIMESTAMP"][:26], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
            yield time, int(row["ContextTokens"]), int(row["GeneratedTokens"])


def lines(log: str) -> Iterator[tuple[datetime, str, str, int]]:
    """A log's requests: when, client, status, bytes."""
    with gzip.open(EXAMPLES / "access-logs" / LOGS[log][0], "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            found = LINE.match(line)
            assert found is not None, line
            client, time, zone, status, size = found.groups()
            instant = datetime.strptime(f"{time} {zone}", "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
            yield instant, client, status, 0 if size == "-" else int(size)


def ingest(client: Client, events: Iterable[events_pb.Event]) -> int:
    """Send all in batches, every third one twice; return how many were accepted."""
    accepted = 0
    waiting = list(events)
    for start in range(0, len(waiting), BATCH):
        batch = waiting[start : start + BATCH]
        response = client.ingest(*batch)
        accepted += response.accepted
        assert response.accepted == len(batch)
        if start // BATCH % 3 == 0:
            assert client.ingest(*batch).duplicate == len(batch)
    return accepted


@pytest.mark.usefixtures("worker")
def test_the_traces_and_the_logs_are_metered_exactly(client: Client) -> None:
    for meter in METERS:
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))
    tenants = [client.put_customer() for _ in range(TENANTS)]
    sites = {log: client.put_customer(time_zone=zone) for log, (_, zone) in LOGS.items()}
    for service, file in TRACES.items():
        sent = ingest(
            client,
            (
                event(
                    tenants[n % TENANTS],
                    id=f"{file}:{n}",
                    type=COMPLETION,
                    time=time,
                    quantities={"context": str(context), "generated": str(generated)},
                    attributes={"service": service},
                )
                for n, (time, context, generated) in enumerate(rows(service))
            ),
        )
        assert sent == {"code": 8_819, "conv": 19_366}[service]
    for log, customer in sites.items():
        sent = ingest(
            client,
            (
                event(
                    customer,
                    id=f"{log}:{n}",
                    type=REQUEST,
                    time=time,
                    quantities={"bytes": str(size)},
                    attributes={"client": address, "status": status},
                )
                for n, (time, address, status, size) in enumerate(lines(log))
            ),
        )
        assert sent == {"semicomplete": 10_000, "secrepo-2021": 644, "secrepo-2022": 1_262}[log]
    eventually(lambda: client.total(sites["secrepo-2022"], "requests", *OF_LOGS["secrepo-2022"]) == 1_262)

    compare_traces(client, tenants)
    for log, customer in sites.items():
        compare_log(client, log, customer)


DAY = (utc(2023, 11, 16), utc(2023, 11, 17))
OF_LOGS = {
    "semicomplete": (utc(2015, 5, 1), utc(2015, 6, 1)),
    "secrepo-2021": (utc(2021, 10, 1), utc(2021, 11, 1)),
    "secrepo-2022": (utc(2022, 12, 1), utc(2023, 1, 1)),
}


def compare_traces(client: Client, tenants: list[str]) -> None:
    """Each tenant's meters, then all tenants' together with what the publisher's files add up to."""
    mine: dict[int, list[tuple[datetime, str, int, int, str]]] = defaultdict(list)
    for service, file in TRACES.items():
        for n, (time, context, generated) in enumerate(rows(service)):
            mine[n % TENANTS].append((time, f"{file}:{n}", context, generated, service))
    summed: Counter[str] = Counter()
    for number, tenant in enumerate(tenants):
        found = mine[number]
        contexts, generated = [each[2] for each in found], [each[3] for each in found]
        mean = Decimal(sum(generated)) / len(generated)
        expected = {
            "completions": Decimal(len(found)),
            "context": Decimal(sum(contexts)),
            "generated": Decimal(sum(generated)),
            "longest": Decimal(max(contexts)),
            "shortest": Decimal(min(contexts)),
            # Rounded as the contract says: 12 decimals, half up.
            "mean": mean.quantize(Decimal("1e-12"), ROUND_HALF_UP),
            # Of the latest time; of several the last id by its bytes.
            "last": Decimal(max(found, key=lambda each: (each[0], each[1].encode()))[3]),
            "code-context": Decimal(sum(each[2] for each in found if each[4] == "code")),
        }
        assert {meter: client.total(tenant, meter, *DAY) for meter in expected} == expected
        summed.update(
            {meter: int(expected[meter]) for meter in ("completions", "context", "generated", "code-context")}
        )
        # By the quarter of an hour: what began in it.
        by_quarter: Counter[datetime] = Counter()
        for time, _, context, _, _ in found:
            by_quarter[time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)] += context
        assert windows(client, tenant, "context", DAY, usage_pb.WINDOW_QUARTER_HOUR) == by_quarter
    # 18,059,974 + 22,361,870 context tokens, 245,896 + 4,088,665 generated ones: the publisher's rows (README there).
    assert summed == {
        "completions": 28_185,
        "context": 18_059_974 + 22_361_870,
        "generated": 245_896 + 4_088_665,
        "code-context": 18_059_974,
    }


def compare_log(client: Client, log: str, customer: str) -> None:
    found = list(lines(log))
    span, zone = OF_LOGS[log], ZoneInfo(LOGS[log][1])
    # Lines, bytes and clients, as examples/access-logs/README.md has them.
    published = {
        "semicomplete": (10_000, 2_747_282_740, 1_753),
        "secrepo-2021": (644, 658_014_895, 160),
        "secrepo-2022": (1_262, 75_257_489, 585),
    }
    statuses = Counter(status for _, _, status, _ in found)
    counted = (len(found), sum(size for *_, size in found), len({address for _, address, _, _ in found}))
    assert counted == published[log]
    assert tuple(client.total(customer, meter, *span) for meter in ("requests", "bytes", "clients")) == counted
    assert client.total(customer, "errors", *span) == sum(
        count for status, count in statuses.items() if int(status) >= 400
    )
    groups = [total for total in client.seal(customer, *span).totals if total.meter == "by-status"]
    assert {total.group["status"]: Decimal(total.value.value) for total in groups} == statuses
    # Local days of the site: the logs of secrepo.com run from 2 o'clock to 2 o'clock there.
    days: Counter[datetime] = Counter()
    for time, _, _, size in found:
        local = time.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        days[local.astimezone(UTC)] += size
    assert windows(client, customer, "bytes", span, usage_pb.WINDOW_DAY) == days


def windows(
    client: Client,
    customer: str,
    meter: str,
    span: tuple[datetime, datetime],
    window: usage_pb.Window.ValueType,
) -> dict[datetime, int]:
    """What the service says, by the windows' starts."""
    answer = client.query(customer, meter, *span, window=window)
    return {each.start_time.ToDatetime(UTC): int(each.value.value) for each in answer.windows}


# 100,000 take a minute: METERSCOPE_TEST_CALLS=100000.
CALLS = int(os.environ.get("METERSCOPE_TEST_CALLS", "10000"))
SEED, MALFORMED, KEYS, FILE_ROWS = 4, 0.01, 10, 10_000
CALL_MONTH = (utc(2026, 10, 1), utc(2026, 11, 1))


@pytest.mark.usefixtures("worker")
@pytest.mark.timeout(600)
def test_made_up_calls_are_metered_exactly(client: Client, channel: grpc.Channel) -> None:
    """Made up by a seeded generator (examples/calls): what it says that it made is what the meters must say."""
    create_meters(channel)
    client.meters.CreateMeter(
        meters_pb.CreateMeterRequest(
            meter=meters_pb.Meter(
                id="countries", event_type="call.record", aggregation=meters_pb.AGGREGATION_UNIQUE, attribute="country"
            )
        )
    )
    customers = {key: client.put_customer(keys=[key]) for key in (f"made-up-{number}" for number in range(1, KEYS + 1))}
    made = list(calls(SEED, CALLS, malformed=MALFORMED, customers=KEYS))
    good = [call for call in made if not call.spoilt]

    accepted = rejected = 0
    for first in range(0, CALLS, FILE_ROWS):
        file = io.StringIO(newline="")
        write(iter(made[first : first + FILE_ROWS]), file)
        answer = Caller(channel).send(file.getvalue())
        accepted, rejected = accepted + answer.accepted, rejected + answer.rejected
    assert (accepted, rejected) == (len(good), CALLS - len(good))

    eventually(lambda: sum(client.total(each, "calls", *CALL_MONTH) for each in customers.values()) == len(good))
    for key, customer in customers.items():
        mine = [call for call in good if call.customer == key]
        expected = {
            "calls": len(mine),
            "call_seconds": sum(call.billable for call in mine),
            "countries": len({call.country for call in mine if call.country}),
        }
        assert {meter: client.total(customer, meter, *CALL_MONTH) for meter in expected} == expected
