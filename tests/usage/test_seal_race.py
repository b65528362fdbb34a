"""Sealing against everything that writes usage, at random: every event is billed exactly once, no sealed total changes.

The same harness runs against two broken orders of a writer's statements, and must find the fault in each: a test that
passes whatever the order is says nothing.
"""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa
from slow_link import SlowLink
from usage_harness import Client, amend, cancel, event, totals, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
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
DAYS: Final = 4
CUSTOMERS: Final = 4
PRODUCERS: Final = 5
# The longest pause of a writer between its look at the seals and what it writes by it, in seconds.
PAUSE: Final = 0.1


class Gate:
    """Where writers pause between their look at the seals and what they write by it.

    Armed, it lets a whole seal pass meanwhile, or as much of it as a second allows: in the right order the seal waits
    for the writer, whose transaction has its id already.
    """

    def __init__(self) -> None:
        self.is_armed = False
        self.looked = threading.Event()
        self.sealed = threading.Event()

    def arm(self) -> None:
        self.looked.clear()
        self.sealed.clear()
        self.is_armed = True

    def pause(self) -> None:
        if not self.is_armed:
            time.sleep(random.uniform(0, PAUSE))
            return
        self.is_armed = False
        self.looked.set()
        self.sealed.wait(1)


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
        return self._counted.pop(self._random.randrange(len(self._counted)))

    def _event(self, customer: str | None = None) -> events_pb.Event:
        happened = JULY + timedelta(seconds=self._random.randrange(DAYS * 86_400))
        number = str(self._random.randrange(1, 1_000_000))
        customer = customer or self._random.choice(self._customers)
        return event(customer, id=new_id("e"), time=happened, quantities={"bytes": number})


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
        gate.pause()
        return insert_once(*arguments, **named)

    def seals_slowly(*arguments: Any) -> Any:
        found = seals(*arguments)
        gate.pause()
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
        gate.pause()
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


def faults(client: Client, slow_client: Client, seed: int) -> list[str]:
    """Let producers and seals run beside each other; return what was billed wrongly."""
    customers = [client.put_customer() for _ in range(CUSTOMERS)]
    choose = random.Random(seed)
    # In order, as bill runs do it, but for one end that is sealed behind the later ones.
    days = [*(day for day in range(1, DAYS) if day != (skipped := choose.randrange(2, DAYS))), skipped]
    ends = [(customer, JULY + timedelta(days=day)) for day in days for customer in customers]
    producers = [Producer(slow_client, customers, seed * 100 + n) for n in range(PRODUCERS)]
    for producer in producers:
        producer.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            sealed = dict(zip(ends, pool.map(lambda end: client.seal(end[0], JULY, end[1]), ends), strict=True))
    finally:
        for producer in producers:
            producer.stopping.set()
        for producer in producers:
            producer.join()
    for producer in producers:
        if producer.error is not None:
            raise producer.error
    return [fault for customer in customers for fault in _audit(client, customer, sealed, producers)]


def faults_of_one(client: Client, gate: Gate, seed: int) -> list[str]:
    """Race a customer's only seal with one writer of each kind, step by step; return what was billed wrongly.

    Late usage is absolute: whatever else comes late for a seal has its usage told anew, and heals what a broken order
    lost. Here nothing else does, and the seal comes at the worst moment.
    """
    end = JULY + timedelta(days=DAYS)
    found: list[str] = []
    for kind in ("send", "amend", "cancel"):
        customer = client.put_customer()
        producer = Producer(client, [customer], seed)
        producer.send()
        with ThreadPoolExecutor(1) as pool:
            gate.arm()
            writing = pool.submit(getattr(producer, kind))
            assert gate.looked.wait(20)
            seal = client.seal(customer, JULY, end)
            gate.sealed.set()
            writing.result()
        found += [f"{kind}: {fault}" for fault in _audit(client, customer, {(customer, end): seal}, [producer])]
    return found


def _audit(client: Client, customer: str, sealed: dict[Any, Any], producers: list[Producer]) -> Iterator[str]:
    last = client.seal(customer, JULY, AUGUST)
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


@pytest.mark.parametrize("seed", [1, 2])
def test_every_event_is_billed_exactly_once(client: Client, slow_client: Client, seed: int) -> None:
    assert faults(client, slow_client, seed) == []


def test_an_event_that_races_the_only_seal_is_billed_exactly_once(client: Client, gate: Gate) -> None:
    assert faults_of_one(client, gate, 1) == []


@pytest.mark.usefixtures("seals_read_first")
def test_the_harness_finds_seals_that_are_read_before_the_first_write(client: Client, gate: Gate) -> None:
    found = faults_of_one(client, gate, 1)
    assert any(fault.startswith("send") for fault in found)


@pytest.mark.usefixtures("no_forced_id")
def test_the_harness_finds_a_writer_without_a_forced_id(client: Client, gate: Gate) -> None:
    found = faults_of_one(client, gate, 1)
    # A key that ingest inserts forces an id; a correction has nothing to insert before it knows the seal.
    assert any(fault.startswith("cancel") for fault in found)
