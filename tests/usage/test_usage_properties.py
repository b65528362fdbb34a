"""Whatever the order, the duplication, the split and the pace, totals are those of a model that knows only the events."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, cast

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpMeter
from usage_harness import Client, cancel, event, timestamp, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as pb
from services.kit.db import Database
from services.kit.outbox import Job, Outbox
from services.usage.counters import Counters
from services.usage.metrics import RedisMetrics, RollupMetrics, RollupState
from services.usage.settings import Settings
from services.usage.store import meters as stored_meters
from services.usage.store import recounts
from services.usage.usecases.notifier import Notifier
from services.usage.usecases.positions import Positions
from services.usage.usecases.publish import Publisher
from services.usage.usecases.recounts import Recounts
from services.usage.usecases.rollup import Rollup
from services.usage.usecases.signals import Signals

TYPE = "property"
START, END = utc(2026, 6, 1), utc(2026, 7, 1)
AGGREGATIONS = ("COUNT", "SUM", "MAX", "MIN", "AVG", "UNIQUE", "LATEST")
# Events in a turn of the rollup.
PACES = (1000, 1, 2, 5)
# Of each aggregation a plain meter, and one with a filter and two groups.
NAMES = [f"{name.lower()}-{kind}" for name in AGGREGATIONS for kind in ("plain", "rich")]


@dataclass(frozen=True)
class Happened:
    """An event as the model knows it."""

    id: str
    second: int
    amount: str | None
    attributes: tuple[tuple[str, str], ...]


AMOUNTS = st.sampled_from([None, "0", "1", "2.5", "2.50", "1000000000000000.000000000001", "7e3"])
TEXTS = st.sampled_from([None, "", "a", "b", "ü"])
# Numbers, and what looks like some.
SIZES = st.sampled_from(
    [None, "5", "5.0", "+7", "-8", "007", "4.99", "5e3", " 6", "NaN", "0x10", "1_000", "٩", "9\n", ""]
)


@st.composite
def happened(draw: st.DrawFn, number: int) -> Happened:
    found = {"user": draw(TEXTS), "region": draw(TEXTS), "zone": draw(TEXTS), "size": draw(SIZES)}
    return Happened(
        f"p{number}",
        # Few instants, so that many coincide; two months less a bit.
        draw(st.integers(0, 40)) * 450 + draw(st.sampled_from([0, 0, 86_400, 864_000])),
        draw(AMOUNTS),
        tuple((name, text) for name, text in found.items() if text is not None),
    )


@dataclass(frozen=True)
class Stream:
    """Events, in batches that hold each at least once; some come after the seal, and some are cancelled in the end."""

    events: list[Happened]
    early: list[list[int]]
    late: list[list[int]]
    cancelled: list[int]
    pace: int
    recounted: str


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    count = draw(st.integers(1, 24))
    events = [draw(happened(number)) for number in range(count)]
    order = draw(st.permutations(range(count)))
    behind = draw(st.integers(0, count))
    early, late = list(order[:behind]), list(order[behind:])

    def batches(numbers: list[int]) -> list[list[int]]:
        if not numbers:
            return []
        numbers = numbers + draw(st.lists(st.sampled_from(numbers), max_size=6))
        cut = draw(st.integers(1, len(numbers)))
        return [batch for batch in (numbers[:cut], numbers[cut:]) if batch]

    cancelled = draw(st.lists(st.integers(0, count - 1), max_size=3, unique=True))
    return Stream(
        events,
        batches(early),
        batches(late),
        cancelled,
        draw(st.sampled_from(PACES)),
        draw(st.sampled_from(NAMES)),
    )


def is_number(text: str) -> Decimal | None:
    """An optional sign, digits, perhaps a point and digits."""
    body = text[1:] if text[:1] in {"+", "-"} else text
    parts = body.split(".")
    if len(parts) > 2 or not all(part and set(part) <= set("0123456789") for part in parts):
        return None
    return Decimal(text)


def counts(each: Happened, kind: str) -> bool:
    """A rich meter takes sizes of at least 5 where there is a region."""
    attributes = dict(each.attributes)
    if kind == "plain":
        return True
    size = is_number(attributes.get("size", ""))
    return size is not None and size >= 5 and "region" in attributes


def value(name: str, events: Sequence[Happened]) -> Decimal | None:
    """What a meter makes of events; None of none."""
    aggregation, kind = name.split("-")
    taken = [each for each in events if counts(each, kind)]
    if aggregation == "count":
        return Decimal(len(taken))
    if aggregation == "unique":
        return Decimal(len({dict(each.attributes)["user"] for each in taken if "user" in dict(each.attributes)}))
    found = [(each.second, each.id, Decimal(each.amount)) for each in taken if each.amount is not None]
    context = Context(prec=60)
    total = Decimal(0)
    for _, _, amount in found:
        total = context.add(total, amount)
    if aggregation == "sum":
        return total
    if not found:
        return None
    if aggregation == "avg":
        return context.divide(total, Decimal(len(found))).quantize(Decimal("1e-12"), ROUND_HALF_UP, context)
    if aggregation == "latest":
        return max(found)[2]
    amounts = [amount for _, _, amount in found]
    return max(amounts) if aggregation == "max" else min(amounts)


@pytest.fixture(scope="module")
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


@dataclass
class Pump:
    """Rolls up all the time, at a pace and in slices that each example chooses."""

    turns: dict[int, Rollup]
    positions: Positions
    pace: int = PACES[0]

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            turn = self.turns[self.pace].turn()
            # A turn is a transaction itself: there would always be one more to take in.
            if turn is None or turn.as_of is not None:
                stop.wait(0.01)


@pytest.fixture(scope="module")
def pump(database: Database, migrated: Settings) -> Iterator[Pump]:
    meter = NoOpMeter("tests")
    counters = Counters(migrated.redis_url, RedisMetrics(meter), timeout=timedelta(seconds=2))
    metrics = RollupMetrics(meter, RollupState(), most_customers=10)
    turns = {
        pace: Rollup(database, Signals(Outbox(database)), Publisher(database, counters), metrics, events_a_turn=pace)
        for pace in PACES
    }
    pump = Pump(turns, Positions(database, Notifier(database)))
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in (pump, pump.positions)]
    for thread in threads:
        thread.start()
    yield pump
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def meters(client: Client) -> None:
    rich = [
        meters_pb.MeterFilter(attribute="size", operator=meters_pb.FILTER_OPERATOR_GREATER_OR_EQUAL, values=["5"]),
        meters_pb.MeterFilter(attribute="region", operator=meters_pb.FILTER_OPERATOR_EXISTS),
    ]
    for name in NAMES:
        aggregation, kind = name.upper().split("-")
        client.meters.CreateMeter(
            meters_pb.CreateMeterRequest(
                meter=meters_pb.Meter(
                    id=name,
                    event_type=TYPE,
                    aggregation=meters_pb.Aggregation.Value(f"AGGREGATION_{aggregation}"),
                    quantity="" if aggregation in {"COUNT", "UNIQUE"} else "amount",
                    attribute="user" if aggregation == "UNIQUE" else "",
                    filters=rich if kind == "RICH" else [],
                    group_by=["region", "zone"] if kind == "RICH" else [],
                )
            )
        )


class _Run:
    """A run of the recount's job."""

    def __init__(self, recount: int) -> None:
        self.payload = {"recount": recount}

    def fence(self, _conn: sa.Connection) -> None:
        pass

    finish = fence


def recount(database: Database, positions: Positions, name: str) -> None:
    with database.transaction() as conn:
        stored = stored_meters.find(conn, name)
        assert stored is not None
        number = recounts.begin(conn, stored.number, START, END)
    assert number is not None
    Recounts(database, positions, lambda: datetime.now(UTC), events_a_slice=20).run(cast("Job", _Run(number)))


def check(client: Client, customer: str, events: Sequence[Happened], names: Sequence[str] = NAMES) -> None:
    """Compare totals, days and groups with the model."""
    for name in names:
        grouped = name.endswith("rich")
        found = client.usage.QueryUsage(
            pb.QueryUsageRequest(
                customer_id=customer,
                meter=name,
                start_time=timestamp(START),
                end_time=timestamp(END),
                window=pb.WINDOW_DAY,
                group_by=["zone"] if grouped else [],
            )
        )
        assert (Decimal(found.total.value) if found.HasField("total") else None) == value(name, events), name
        shown = {
            (window.start_time.ToDatetime(UTC), window.group.get("zone")): Decimal(window.value.value)
            for window in found.windows
        }
        expected: dict[Any, Decimal] = {}
        keys = {(each.second // 86_400, dict(each.attributes).get("zone") if grouped else None) for each in events}
        for day, zone in keys:
            part = [
                each
                for each in events
                if each.second // 86_400 == day and (not grouped or dict(each.attributes).get("zone") == zone)
            ]
            wanted = value(name, part)
            # A SUM has a window for events that it counted as 0, a COUNT and a UNIQUE none of 0.
            has_window = wanted if name[:3] != "sum" else value(name.replace("sum", "count"), part)
            if has_window or (wanted is not None and name[:5] not in {"count", "sum-p", "sum-r", "uniqu"}):
                expected[START + timedelta(days=day), zone] = cast("Decimal", wanted)
        assert shown == expected, name


def of_seal(found: pb.SealUsageResponse | pb.LateUsage) -> dict[str, Decimal]:
    return {total.meter: Decimal(total.value.value) for total in found.merged_totals}


def expected_seal(events: Sequence[Happened], names: Sequence[str]) -> dict[str, Decimal]:
    return {name: value(name, events) or Decimal(0) for name in names}


@pytest.mark.usefixtures("meters")
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_totals_are_those_of_the_model(client: Client, pump: Pump, database: Database, stream: Stream) -> None:
    pump.pace = stream.pace
    customer = client.put_customer()
    sent: list[events_pb.Event] = [
        event(
            customer,
            id=each.id,
            type=TYPE,
            time=START + timedelta(seconds=each.second),
            quantities={} if each.amount is None else {"amount": each.amount},
            attributes=dict(each.attributes),
        )
        for each in stream.events
    ]

    accepted = sum(client.ingest(*[sent[n] for n in batch]).accepted for batch in stream.early)
    sealed = client.seal(customer, START, END)
    accepted += sum(client.ingest(*[sent[n] for n in batch]).accepted for batch in stream.late)

    assert accepted == len(stream.events)
    early = [stream.events[n] for n in {n for batch in stream.early for n in batch}]
    assert of_seal(sealed) == expected_seal(early, sorted(of_seal(sealed)))
    check(client, customer, stream.events)
    recount(database, pump.positions, stream.recounted)
    check(client, customer, stream.events, [stream.recounted])

    for number in stream.cancelled:
        cancel(client, sent[number])
    left = [each for number, each in enumerate(stream.events) if number not in stream.cancelled]
    check(client, customer, left)
    # The seal's totals stay; with what came late, and without what was cancelled, it is what is left.
    assert of_seal(client.seal(customer, START, END)) == of_seal(sealed)
    merged = client.usage.ListLateUsage(pb.ListLateUsageRequest(customer_id=customer)).late_usage
    if stream.late or stream.cancelled:
        assert [of_seal(each) for each in merged] == [expected_seal(left, sorted(of_seal(merged[0])))]
        assert {name for name in NAMES if value(name, left)} <= set(of_seal(merged[0]))
