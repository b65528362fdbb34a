"""Calls and files of them for tests, and what the service answers."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import grpc
import pytest
from google.type import decimal_pb2
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from usage_harness import Client, timestamp, utc

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb

START = utc(2026, 10, 1)
END = utc(2026, 11, 1)
LONDON, LONDON_2 = "+442079460018", "+442079460019"
MUMBAI_MOBILE = "+919876543210"
NUMBERING = pb.Numbering(default_region="IN", own_prefixes=["+442079460018"])

HEADER = "id,account,from,to,start,duration,billsec,status\n"
# 5 calls, of which 4 are answered or not; one row has no number, one no time, one a negative duration.
ROWS = (
    f"k1,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,70,60,ANSWERED\n"
    f"k2,,{LONDON},nobody,2026-10-05 10:01:00,70,60,ANSWERED\n"
    f"k3,,1001,+14155550123,2026-10-05 10:02:00,0:01:30,,answered\n"
    f"k4,,{LONDON},{MUMBAI_MOBILE},when?,70,60,ANSWERED\n"
    f"k5,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:03:00,20,0,NO ANSWER\n"
    f"k6,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:04:00,-5,,ANSWERED\n"
    f"k7,,,1001,2026-10-05 10:05:00,12.5,10.25,ANSWERED\n"
)


ANSWERED_OUTBOUND = meters_pb.Meter(
    id="answered_outbound",
    event_type="call.record",
    aggregation=meters_pb.AGGREGATION_COUNT,
    filters=[
        meters_pb.MeterFilter(
            attribute="call_type", operator=meters_pb.FILTER_OPERATOR_IN, values=["outbound", "toll_free"]
        ),
        meters_pb.MeterFilter(attribute="disposition", operator=meters_pb.FILTER_OPERATOR_EQUALS, values=["answered"]),
    ],
)


class Caller:
    """Calls CallRecordService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = call_record_service_pb2_grpc.CallRecordServiceStub(channel)

    def send(self, text: str | bytes, *, chunk: int = 65_536, **options: object) -> pb.ImportCallRecordsResponse:
        """Import a file, cut into chunks of so many bytes."""
        data = text.encode() if isinstance(text, str) else text

        def requests() -> Iterator[pb.ImportCallRecordsRequest]:
            yield pb.ImportCallRecordsRequest(**options)  # type: ignore[arg-type]
            for start in range(0, len(data), chunk):
                yield pb.ImportCallRecordsRequest(chunk=data[start : start + chunk])

        answer: pb.ImportCallRecordsResponse = self.stub.ImportCallRecords(requests(), timeout=60)
        return answer

    def calls(self, customer: str, **chosen: object) -> list[pb.CallRecord]:
        """All of a customer's calls, page by page."""
        found: list[pb.CallRecord] = []
        token = ""
        while True:
            request = pb.ListCallRecordsRequest(customer_id=customer, page_token=token, **chosen)  # type: ignore[arg-type]
            answer = self.stub.ListCallRecords(request, timeout=30)
            found += answer.call_records
            token = answer.next_page_token
            if not token:
                return found


def counts(answer: pb.ImportCallRecordsResponse | pb.IngestCallRecordsResponse) -> tuple[int, ...]:
    """Accepted, duplicate, conflict, quarantined, rejected."""
    return answer.accepted, answer.duplicate, answer.conflict, answer.quarantined, answer.rejected


def points(reader: InMemoryMetricReader, name: str) -> dict[tuple[tuple[str, object], ...], float]:
    """The points of an instrument by their sorted labels: a counter's value, a histogram's count."""
    data = reader.get_metrics_data()
    return {
        tuple(sorted((point.attributes or {}).items())): getattr(point, "value", None) or getattr(point, "count", 0)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    }


def record(customer: str, id: str, callee: str = MUMBAI_MOBILE, **more: object) -> pb.CallRecord:  # noqa: A002
    values: dict[str, object] = {
        "caller": LONDON,
        "start_time": timestamp(START),
        "duration_seconds": decimal_pb2.Decimal(value="65"),
        **more,
    }
    return pb.CallRecord(id=id, customer_id=customer, callee=callee, **values)  # type: ignore[arg-type]


def ingest(
    caller: Caller, *records: pb.CallRecord, numbering: pb.Numbering = NUMBERING
) -> pb.IngestCallRecordsResponse:
    request = pb.IngestCallRecordsRequest(call_records=records, numbering=numbering)
    answer: pb.IngestCallRecordsResponse = caller.stub.IngestCallRecords(request, timeout=30)
    return answer


def refused(call: object, *arguments: object, **named: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value


def by_country(client: Client, customer: str, meter: str, start: datetime, end: datetime) -> dict[str, int]:
    """What QueryUsage says of a meter, by the country called."""
    request = usage_pb.QueryUsageRequest(
        customer_id=customer,
        meter=meter,
        start_time=timestamp(start),
        end_time=timestamp(end),
        group_by=["country"],
    )
    answer = client.usage.QueryUsage(request)
    return {each.group.get("country", ""): int(Decimal(each.value.value)) for each in answer.windows}
