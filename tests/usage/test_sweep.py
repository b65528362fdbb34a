"""What is held goes in by itself as soon as it can."""

import pytest
from eventually import eventually
from usage_harness import Client, event

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.settings import read
from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("meters", "worker")


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return read(Settings, environment | {"METERSCOPE_USAGE_REPLAY_SECONDS": "1"})


def test_what_is_held_is_replayed_by_itself(client: Client) -> None:
    client.ingest(event("somebody"))
    customer = client.put_customer(keys=["somebody"])

    def is_empty() -> bool:
        return client.events.ListQuarantinedEvents(pb.ListQuarantinedEventsRequest()).total_size == 0

    eventually(is_empty)
    assert client.total(customer, "requests") == 1
