"""`python -m services.billing`: real processes, and settings that are wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from billing_harness import Client
from billing_peers import Peers
from eventually import eventually
from json_lines import json_lines

from meterscope.billing.v1 import bill_run_service_pb2 as pb
from services.billing.__main__ import main
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.settings import read


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"DATABASE_URL": ""}, "BILLING_DATABASE_URL (or DATABASE_URL) is not set"),
        ({"REDIS_URL": ""}, "REDIS_URL is not set"),
        ({"METERSCOPE_BILL_ATTEMPTS": "none"}, "METERSCOPE_BILL_ATTEMPTS 'none' is not a whole number"),
        ({"METERSCOPE_SELLER_TIME_ZONE": "Mars"}, "METERSCOPE_SELLER_TIME_ZONE 'Mars' is no IANA time zone"),
        ({"METERSCOPE_SELLER_TIME_ZONE": "localtime"}, "METERSCOPE_SELLER_TIME_ZONE 'localtime' is no IANA time zone"),
        ({"METERSCOPE_FISCAL_YEAR_MONTH": "13"}, "METERSCOPE_FISCAL_YEAR_MONTH 13 is no month"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_78_and_names_the_variable(
    environment: dict[str, str], changes: dict[str, str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"], {**environment, **changes}) == 78
    assert complaint in capsys.readouterr().err


@contextmanager
def process(log: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[None]:
    """A process that is told to stop at the end, and does."""
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "services.billing", *arguments],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )
    yield
    running.terminate()
    assert running.wait(20) == 0


def address(log: Path) -> str:
    """Where the process listens, as it says itself: its port is a free one."""

    def told() -> list[str]:
        return [line["address"] for line in json_lines(log) if line["message"] == "listening"]

    return eventually(told)[0]


def names(trace_file: Path, trace_id: str, attribute: str = "") -> set[str]:
    """The spans of a trace in a file of spans; those with an attribute only, if one is named."""
    spans = json_lines(trace_file)
    return {
        span["name"]
        for span in spans
        if span["context"]["trace_id"] == f"0x{trace_id}" and (not attribute or attribute in span["attributes"])
    }


def test_server_and_worker_bill_a_period_under_the_trace_of_the_run(
    environment: dict[str, str], peers: Peers, tmp_path: Path
) -> None:
    trace_file, log = tmp_path / "spans.jsonl", tmp_path / "serve.log"
    environ = {**environment, "METERSCOPE_TRACE_FILE": str(trace_file)}
    with (
        process(log, environ, "serve", "--migrate"),
        process(tmp_path / "work.log", environ, "work"),
        open_channel(address(log), read(KitSettings, {})) as channel,
    ):
        client = Client(channel)
        customer = client.customer()
        # By the real clock: 40 days back, one month is over.
        start = datetime.now(UTC) - timedelta(days=40)
        client.subscribe(customer, client.plan(), start.replace(tzinfo=None).isoformat())
        bill_run = client.ended(client.bill_runs.StartBillRun(pb.StartBillRunRequest(request_id="processes")))
        (invoice,) = client.invoices_of(customer)
        eventually(lambda: client.invoice(invoice.id).payment_id)
    assert invoice.trace_id == bill_run.trace_id
    assert {
        "meterscope.billing.v1.BillRunService/StartBillRun",
        "send bill_period",
        "process bill_period",
        "seal",
        "meterscope.usage.v1.UsageService/SealUsage",
        "price",
        "finalize",
        "process collect_invoice",
        "meterscope.payments.v1.PaymentService/CreatePayment",
    } <= names(trace_file, invoice.trace_id)
    assert {"process bill_period", "finalize"} <= names(trace_file, invoice.trace_id, "meterscope.keep")
    assert len(peers.payments.of(invoice.id)) == 1
