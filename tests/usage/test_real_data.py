"""Real data, metered with several meters each, against numbers that are counted without the service.

Two LLM traces and three access logs (examples/, with their licences), 40,091 events, and 100,000 made-up calls. Each
customer's meters are compared with what plain Python counts in the files, and all customers' together with what the
publishers' rows add up to, by the command that stands beside the number.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from access_logs import Logs
from eventually import eventually
from llm_traces import Traces
from month_of_calls import CallMonth
from usage_harness import Client

from services.kit.settings import read
from services.usage.settings import Settings


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    """The oldest of the data is of May 2015."""
    return read(Settings, environment | {"METERSCOPE_USAGE_ACCEPT_DAYS": "20000"})


def is_rolled_up(client: Client, customer: str, sent: datetime) -> bool:
    answer = client.query(customer, "requests", sent - timedelta(hours=1), sent)
    return answer.as_of.ToDatetime(UTC) >= sent


@pytest.mark.usefixtures("worker")
@pytest.mark.timeout(600)
def test_the_traces_the_logs_and_100_000_calls_are_metered_exactly(client: Client, channel: grpc.Channel) -> None:
    sources = (Traces(client), Logs(client), CallMonth(client, channel))
    with ThreadPoolExecutor(len(sources)) as pool:
        # At the same time, as three producers do.
        for sent in [pool.submit(each.send) for each in sources]:
            sent.result()
    # A busy machine rolls up later than the two seconds for which an answer waits.
    eventually(functools.partial(is_rolled_up, client, client.put_customer(), datetime.now(UTC)), seconds=240)
    for each in sources:
        each.compare()
