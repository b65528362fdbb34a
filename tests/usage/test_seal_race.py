"""Sealing against everything that writes usage, at random: every event is billed exactly once, no sealed total changes.

What is billed heals: late usage is absolute, so whatever comes late for a seal has all of its usage told anew, with what
a broken order lost. So the books are not all that is looked at: each event says whether it was in time or which seal it
came too late for, and of the two a seal's frozen totals must have the first and nothing else. A frozen total never heals.

The same harness runs against two broken orders of a writer's statements, at random and step by step, and must find the
fault in each: a test that passes whatever the order is says nothing.
"""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa
from slow_link import SlowLink
from usage_harness import Client, amend, cancel, event, totals, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from services.kit.channel import open_channel
from services.kit.ids import new_id
from services.usage.__main__ import build_server
from services.usage.domain.instant import to_us
from services.usage.settings import Settings
from services.usage.store import corrections as corrections_store
from services.usage.store import ingest, places, wire
from services.usage.usecases import corrections

pytestmark = pytest.mark.usefixtures("meters", "worker")

JULY, AUGUST = utc(2026, 7, 1), utc(2026, 8, 1)
DAYS: Final = 6
CUSTOMERS: Final = 2
PRODUCERS: Final = 5
# What a writer writes between whose look and row a seal may come.
EVENTS: Final = "events"
CORRECTION: Final = "correction"
# So many of ten stop between their look at the seals and their row; two of them, and a seal begins.
CHANCE: Final = 0.4
STANDING: Final = 2
# How long at most a writer stands while a seal does not answer, in seconds: less than a transaction may take. Seals that
# wait for none of those that stand do answer, however long that takes on a busy machine.
PAUSE: Final = 0.7
LONG_PAUSE: Final = 3.0
# A broken order must be found with one of these.
SEEDS: Final = range(1, 11)

Sql = psycopg.Connection[Any]


class Gate:
    """Where writers of one kind stop, by chance, between their look at the seals and what they write by it.

    One that stops goes on when the next seals are answered, or are not for a while: in the right order a seal waits for
    the writer, whose transaction has its id already. Of one kind: a writer in the right order, which a seal waits for,
    would hide one in a broken order, which it does not wait for.
    """

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._changed = threading.Condition()
        self._kind, self._chance = "", 0.0
        self._standing = self._begun = self._answered = 0
        self.patience = PAUSE

    def close(self, kind: str, chance: float = 1) -> None:
        """Have each writer of a kind stop with this chance."""
        with self._changed:
            self._kind, self._chance = kind, chance

    def open(self) -> None:
        """Have none stop, and let those go on that stand."""
        with self._changed:
            self._chance = 0.0
            self._changed.notify_all()

    def look(self, kind: str) -> None:
        """A writer has looked."""
        with self._changed:
            if kind != self._kind or self._random.random() >= self._chance:
                return
            self._standing += 1
            # Of those that are being made already, if there are any: they may wait for this writer.
            seals = max(self._begun, self._answered + 1)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._begun >= seals or not self._chance, 2 * PAUSE)
            self._changed.wait_for(lambda: self._answered >= seals or not self._chance, self.patience)
            self._standing -= 1

    @contextmanager
    def sealing(self, writers: int = 1) -> Iterator[None]:
        """Seal in a block, when so many writers stand (or none comes any more)."""
        with self._changed:
            self._changed.wait_for(lambda: self._standing >= writers, PAUSE if writers > 1 else 20)
            self._begun += 1
            self._changed.notify_all()
        yield
        with self._changed:
            self._answered += 1
            self._changed.notify_all()


@dataclass
class Books:
    """What counts, by customer and event, as the answers said."""

    bytes: dict[str, dict[str, int]] = field(default_factory=dict)

    def totals(self, customer: str) -> dict[str, Decimal]:
        mine = self.bytes.get(customer, {})
        return {"bytes": Decimal(sum(mine.values())), "requests": Decimal(len(mine))}


class Producer(threading.Thread):
    """Sends, sends again, amends and cancels events of random times until it is told to stop.

    It corrects its own events only, so that its books are right; who wins a race for one event is tested elsewhere.
    """

    def __init__(self, client: Client, customers: list[str], seed: int) -> None:
        super().__init__()
        self.stopping = threading.Event()
        # The end of the day that is sealed next: most of what it does is about that day.
        self.next = JULY + timedelta(days=1)
        self.books = Books({customer: {} for customer in customers})
        self.error: BaseException | None = None
        self._client = client
        self._customers = customers
        self._random = random.Random(seed)
        self._sent: list[events_pb.Event] = []
        self._counted: list[events_pb.Event] = []

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.step()
        except BaseException as error:  # noqa: BLE001 - told by the thread that joins
            self.error = error

    def step(self) -> None:
        """Do one thing."""
        act = self._random.choices([self.send, self.amend, self.cancel], [3, 3, 4])[0]
        act()

    def send(self) -> None:
        """Send some events, and some of before again."""
        batch = [self._event() for _ in range(self._random.randint(3, 12))]
        batch += self._random.sample(self._sent, min(len(self._sent), 2))
        for sent, result in zip(batch, self._client.ingest(*batch).results, strict=True):
            if result.outcome == events_pb.OUTCOME_ACCEPTED:
                self._count(sent)
            else:
                assert result.outcome == events_pb.OUTCOME_DUPLICATE, result
        self._sent += batch

    def amend(self) -> None:
        """Amend an event that counts."""
        wrong = self._choose()
        if wrong is not None:
            right = self._event(wrong.customer_id)
            amend(self._client, wrong, right)
            del self.books.bytes[wrong.customer_id][wrong.id]
            self._count(right)

    def cancel(self) -> None:
        """Cancel an event that counts."""
        wrong = self._choose()
        if wrong is not None:
            cancel(self._client, wrong)
            del self.books.bytes[wrong.customer_id][wrong.id]

    def _count(self, sent: events_pb.Event) -> None:
        self.books.bytes[sent.customer_id][sent.id] = int(sent.quantities["bytes"].value)
        self._counted.append(sent)

    def _choose(self) -> events_pb.Event | None:
        if not self._counted:
            return None
        near = [place for place, each in enumerate(self._counted) if self._is_of_next(each)]
        places = near if near and self._is_near() else range(len(self._counted))
        return self._counted.pop(self._random.choice(places))

    def _event(self, customer: str | None = None) -> events_pb.Event:
        happened = JULY + timedelta(seconds=self._random.randrange(DAYS * 86_400))
        if self._is_near():
            happened = self.next - timedelta(seconds=self._random.randrange(1, 86_400))
        number = str(self._random.randrange(1, 1_000_000))
        customer = customer or self._random.choice(self._customers)
        return event(customer, id=new_id("e"), time=happened, quantities={"bytes": number})

    def _is_near(self) -> bool:
        return self._random.random() < 2 / 3

    def _is_of_next(self, sent: events_pb.Event) -> bool:
        return self.next - timedelta(days=1) <= sent.time.ToDatetime(UTC) < self.next


@pytest.fixture
def slow_client(migrated: Settings) -> Iterator[Client]:
    """A client of a server whose transactions pause between their steps."""
    link = SlowLink(migrated.database_url, longest_pause=0.02)
    server = build_server(replace(migrated, database_url=link.url))
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        yield Client.on(channel)
    server.stop()
    link.close()


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Writers pause between their look at the seals and their row."""
    gate = Gate()
    insert_once, seals = corrections_store.insert_once, ingest._seals  # noqa: SLF001 - the step behind which they pause

    def insert_slowly(*arguments: Any, **named: Any) -> bool:
        gate.look(CORRECTION)
        return insert_once(*arguments, **named)

    def seals_slowly(*arguments: Any) -> Any:
        found = seals(*arguments)
        gate.look(EVENTS)
        return found

    monkeypatch.setattr(corrections_store, "insert_once", insert_slowly)
    monkeypatch.setattr(ingest, "_seals", seals_slowly)
    return gate


@pytest.fixture
def seals_read_first(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Ingest reads the seals before its transaction has an id."""
    known = threading.local()
    begin = ingest._begin  # noqa: SLF001 - the order of these steps is what is broken here

    def begin_late(conn: psycopg.Connection[Any]) -> Any:
        known.seals = {}
        for customer, end, number in conn.execute(
            "SELECT customer, end_time, number FROM seals ORDER BY customer, end_time"
        ):
            known.seals.setdefault(wire.int8(customer), []).append((to_us(end), number))
        gate.look(EVENTS)
        return begin(conn)

    monkeypatch.setattr(ingest, "_begin", begin_late)
    monkeypatch.setattr(ingest, "_seals", lambda _conn, _accepted: known.seals)


@pytest.fixture
def no_forced_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections get their transaction's id with the first row that they write, as any transaction does.

    A cancel has nothing to write before it knows the seal; an ingest would get its id from its keys, unless all of
    them are there, and then it stores nothing.
    """

    def writer(conn: sa.Connection) -> int:
        return places.behind_all(conn)

    monkeypatch.setattr(corrections, "places", SimpleNamespace(writer=writer, floor=places.floor, RAW=places.RAW))
    # A call without a request id; the client gives each one, whose row would assign the transaction's id.
    monkeypatch.setattr(corrections, "once", lambda _conn, *, act, **_named: act())


def faults(
    client: Client, slow_client: Client, gate: Gate, sql: Sql, seed: int, kinds: Sequence[str] = (EVENTS, CORRECTION)
) -> list[str]:
    """Let producers and seals run beside each other, writers of a kind stop at each; return what was billed wrongly."""
    customers = [client.put_customer() for _ in range(CUSTOMERS)]
    choose = random.Random(seed)
    # In order, as bill runs do it, but for one end that is sealed behind the later ones.
    skipped = choose.randrange(1, DAYS)
    days = [*(day for day in range(1, DAYS + 1) if day != skipped), skipped]
    producers = [Producer(slow_client, customers, seed * 100 + n) for n in range(PRODUCERS)]
    sealed: dict[tuple[str, datetime], usage_pb.SealUsageResponse] = {}
    for producer in producers:
        producer.start()
    try:
        for end in (JULY + timedelta(days=day) for day in days):
            gate.close(choose.choice(kinds), CHANCE)
            for producer in producers:
                producer.next = end
            with gate.sealing(STANDING), ThreadPoolExecutor(CUSTOMERS) as pool:
                found = pool.map(lambda customer, end=end: client.seal(customer, JULY, end), customers)
                sealed |= {(customer, end): seal for customer, seal in zip(customers, found, strict=True)}
    finally:
        for producer in producers:
            producer.stopping.set()
        gate.open()
        for producer in producers:
            producer.join()
    for producer in producers:
        if producer.error is not None:
            raise producer.error
    return [fault for customer in customers for fault in _audit(client, sql, customer, sealed, producers)]


def faults_of_one(client: Client, gate: Gate, sql: Sql, seed: int) -> list[str]:
    """Race a customer's only seal with one writer of each kind, step by step; return what was billed wrongly.

    The seal comes at the worst moment, and nothing else comes late for it that would heal what is billed.
    """
    end = JULY + timedelta(days=DAYS)
    found: list[str] = []
    for kind in ("send", "amend", "cancel"):
        customer = client.put_customer()
        producer = Producer(client, [customer], seed)
        producer.send()
        with ThreadPoolExecutor(1) as pool:
            gate.close(EVENTS if kind == "send" else CORRECTION)
            writing = pool.submit(getattr(producer, kind))
            with gate.sealing():
                seal = client.seal(customer, JULY, end)
            gate.open()
            writing.result()
        found += [f"{kind}: {fault}" for fault in _audit(client, sql, customer, {(customer, end): seal}, [producer])]
    return found


def _audit(client: Client, sql: Sql, customer: str, sealed: dict[Any, Any], producers: list[Producer]) -> Iterator[str]:
    """Yield what a customer's seals have frozen wrongly, and what is billed of it otherwise than the books say."""
    last = client.seal(customer, JULY, AUGUST)
    frozen = {end: totals(seal) for (owner, end), seal in sealed.items() if owner == customer} | {AUGUST: totals(last)}
    yield from _frozen_wrongly(sql, customer, frozen)
    late = {each.period_end_time.ToDatetime(): totals(each) for each in last.late_usage}
    billed = dict.fromkeys(("bytes", "requests"), Decimal(0))
    parts = [totals(last)]
    for (owner, end), seal in sealed.items():
        if owner == customer:
            parts.append(late.get(end.replace(tzinfo=None), totals(seal)))
            again = totals(client.seal(customer, JULY, end))
            if again != totals(seal):
                yield f"the total sealed at {end} was {totals(seal)} and is {again}"
    for part in parts:
        for meter, value in part.items():
            billed[meter] += value
    for meter, value in billed.items():
        counted = sum((producer.books.totals(customer)[meter] for producer in producers), Decimal(0))
        if value != counted:
            yield f"{meter} of {customer}: {value} billed of {counted}"
        used = client.total(customer, meter)
        if used != counted:
            yield f"{meter} of {customer}: {used} used of {counted}"


def _frozen_wrongly(sql: Sql, customer: str, frozen: Mapping[datetime, Mapping[str, Decimal]]) -> Iterator[str]:
    """Yield where frozen totals are not those of the events in time."""
    for end, found in frozen.items():
        expected = list(_in_time(sql, customer, end))
        if found not in expected:
            yield f"the seal at {end} of {customer} has frozen {found}; what came in time is one of {expected}"


def _in_time(sql: Sql, customer: str, end: datetime) -> Iterator[dict[str, Decimal]]:
    """Yield the totals that a seal may have frozen.

    In time is an event that carries no seal, unless a correction that carries none either took it away before. Of the
    corrections that carry the seal those may be frozen that the rollup had taken when it came far enough: the first so
    many in the order of their transactions.
    """
    rows = sql.execute(
        """
        SELECT (e.quantities ->> 'bytes')::numeric, k.seal
        FROM customers AS c
        JOIN seals AS s ON s.customer = c.number
        JOIN events AS e ON e.customer = c.number AND e.seal = 0 AND e.time >= s.from_time AND e.time < s.end_time
        LEFT JOIN corrections AS k ON k.customer = e.customer AND k.digest = e.digest
        WHERE c.id = %s AND s.end_time = %s
        ORDER BY k.tx
        """,
        (customer, end),
    ).fetchall()
    left = [size for size, seal in rows if seal != 0]
    corrected = [size for size, seal in rows if seal]
    for taken in range(len(corrected) + 1):
        added = sum(left, Decimal(0)) - sum(corrected[:taken])
        if left:
            yield {"bytes": added, "requests": Decimal(len(left) - taken)}
        # A meter without any event in time has no total, nor one whose events were all away before they were rolled up.
        if len(left) == taken:
            yield {}


def first_faults(client: Client, slow_client: Client, gate: Gate, sql: Sql, kind: str) -> list[str]:
    """What the first seed finds that finds something, where writers of a kind keep to a broken order."""
    return next(filter(None, (faults(client, slow_client, gate, sql, seed, [kind]) for seed in SEEDS)), [])


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_every_event_is_billed_exactly_once(
    client: Client, slow_client: Client, gate: Gate, sql: Sql, seed: int
) -> None:
    assert faults(client, slow_client, gate, sql, seed) == []


@pytest.mark.usefixtures("seals_read_first")
def test_random_races_find_seals_that_are_read_before_the_first_write(
    client: Client, slow_client: Client, gate: Gate, sql: Sql
) -> None:
    assert first_faults(client, slow_client, gate, sql, EVENTS) != []


@pytest.mark.usefixtures("no_forced_id")
def test_random_races_find_a_writer_without_a_forced_id(
    client: Client, slow_client: Client, gate: Gate, sql: Sql
) -> None:
    # None of the writers that stand has an id, so that each seal answers.
    gate.patience = LONG_PAUSE
    assert first_faults(client, slow_client, gate, sql, CORRECTION) != []


def test_an_event_that_races_the_only_seal_is_billed_exactly_once(client: Client, gate: Gate, sql: Sql) -> None:
    assert faults_of_one(client, gate, sql, 1) == []


@pytest.mark.usefixtures("seals_read_first")
def test_one_race_finds_seals_that_are_read_before_the_first_write(client: Client, gate: Gate, sql: Sql) -> None:
    found = faults_of_one(client, gate, sql, 1)
    assert any(fault.startswith("send") for fault in found)


@pytest.mark.usefixtures("no_forced_id")
def test_one_race_finds_a_writer_without_a_forced_id(client: Client, gate: Gate, sql: Sql) -> None:
    found = faults_of_one(client, gate, sql, 1)
    # A key that ingest inserts forces an id; a correction has nothing to insert before it knows the seal.
    assert any(fault.startswith("cancel") for fault in found)
