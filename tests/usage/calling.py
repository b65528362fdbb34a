"""Calls and files of them for tests, and what the service answers."""

from collections.abc import Iterator

import grpc
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc


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
