"""Events that cannot be judged yet are kept, and go in when they can."""

from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from eventually import eventually
from usage_harness import Client, event

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.ids import new_id

pytestmark = pytest.mark.usefixtures("meters", "worker")


def held(client: Client, key: str) -> pb.ListQuarantinedEventsResponse:
    return client.events.ListQuarantinedEvents(pb.ListQuarantinedEventsRequest(customer_key=key))


def replay(client: Client, key: str = "", request_id: str = "") -> pb.ReplayQuarantinedEventsResponse:
    request = pb.ReplayQuarantinedEventsRequest(customer_key=key, request_id=request_id)
    return client.events.ReplayQuarantinedEvents(request)


@pytest.fixture
def key() -> str:
    return f"key-{uuid4().hex}"


def test_an_unknown_customer_is_held_and_the_same_event_again_held_once(client: Client, key: str) -> None:
    sent = event(key, id="a", quantities={"bytes": "12.50"}, attributes={"path": "/"})

    for _ in range(2):
        result = client.ingest(sent).results[0]
        assert (result.outcome, result.reason) == (pb.OUTCOME_QUARANTINED, "UNKNOWN_CUSTOMER")
        assert result.field == "customer_key"

    found = held(client, key)
    assert found.total_size == 1
    assert found.quarantined_events[0].reason == "UNKNOWN_CUSTOMER"
    shown = found.quarantined_events[0].event
    assert (shown.id, shown.customer_key, shown.quantities["bytes"].value) == ("a", key, "12.5")
    assert dict(shown.attributes) == {"path": "/"}


def test_an_unknown_event_type_is_held_until_a_meter_counts_it(client: Client, key: str) -> None:
    customer = client.put_customer(keys=[key])
    result = client.ingest(event(key, type=key)).results[0]
    assert (result.outcome, result.reason, result.field) == (pb.OUTCOME_QUARANTINED, "UNKNOWN_EVENT_TYPE", "type")

    client.create_meter(f"m-{key[-20:]}", event_type=key)

    assert replay(client, key).accepted == 1
    assert client.total(customer, f"m-{key[-20:]}") == 1


def test_replay_takes_in_what_is_known_and_leaves_the_rest(client: Client, key: str) -> None:
    time = datetime.now(UTC)
    client.ingest(*[event(key, id=f"{n}", time=time, quantities={"bytes": "2"}) for n in range(2_500)])
    client.ingest(event(f"{key}-other"))
    customer = client.put_customer(keys=[key])

    first = replay(client, request_id=f"replay-{key}")

    assert first.accepted == 2_500
    assert first.quarantined == held(client, "").total_size > 0
    assert held(client, key).total_size == 0
    assert client.total(customer, "bytes") == 5_000
    # The same request gets the first answer; another one finds nothing, and counts nothing twice.
    assert replay(client, request_id=f"replay-{key}") == first
    assert replay(client, key).accepted == 0
    assert client.outcomes(event(key, id="7", time=time, quantities={"bytes": "2"})) == ["DUPLICATE"]


def test_what_was_sent_twice_with_other_content_is_refused_at_the_replay(client: Client, key: str) -> None:
    time = datetime.now(UTC)
    client.ingest(event(key, id="a", time=time, quantities={"bytes": "1"}))
    client.ingest(event(key, id="a", time=time, quantities={"bytes": "2"}))
    assert held(client, key).total_size == 2
    customer = client.put_customer(keys=[key])

    result = replay(client, key)

    assert (result.accepted, result.conflict, result.quarantined) == (1, 1, 0)
    assert client.total(customer, "bytes") == 1


def test_a_customer_is_known_to_ingest_as_soon_as_it_is_put(client: Client, key: str) -> None:
    assert client.outcomes(event(key)) == ["QUARANTINED"]
    client.put_customer(keys=[key])
    assert client.outcomes(event(key)) == ["ACCEPTED"]


def test_a_key_that_a_customer_gives_up_is_unknown_within_a_second(client: Client, key: str) -> None:
    customer = client.put_customer(keys=[key])
    assert client.outcomes(event(key)) == ["ACCEPTED"]

    client.put_customer(customer, keys=[], revision=2)

    eventually(lambda: client.outcomes(event(key)) == ["QUARANTINED"], seconds=2)


def test_pages_of_held_events_neither_skip_nor_repeat(client: Client, key: str) -> None:
    client.ingest(*[event(key, id=f"{n}") for n in range(5)])
    seen, token = [], ""
    while True:
        request = pb.ListQuarantinedEventsRequest(customer_key=key, page_size=2, page_token=token)
        page = client.events.ListQuarantinedEvents(request)
        seen += [each.event.id for each in page.quarantined_events]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == ["0", "1", "2", "3", "4"]


def test_an_event_that_the_database_refuses_stands_alone(
    client: Client, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    customer = client.put_customer()
    sql.execute("ALTER TABLE events ADD CONSTRAINT poison CHECK (id <> 'poison')")
    batch = [event(customer, id="poison" if n == 3 else None) for n in range(7)]

    response = client.ingest(*batch)

    assert [result.reason for result in response.results] == ["", "", "", "UNSTORABLE", "", "", ""]
    assert client.total(customer, "requests") == 6
    sql.execute("ALTER TABLE events DROP CONSTRAINT poison")
    assert client.outcomes(batch[3]) == ["ACCEPTED"]


def test_an_id_of_a_customer_that_is_not_there_is_held_too(client: Client) -> None:
    customer = new_id("cus")
    sent = event(customer)
    assert client.outcomes(sent) == ["QUARANTINED"]
    client.put_customer(customer)
    assert replay(client).accepted >= 1
    assert client.outcomes(sent) == ["DUPLICATE"]
