"""CallRecordService."""

from collections.abc import Iterator

import grpc

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc
from services.kit.errors import InvalidArgument
from services.usage.convert import calls as convert
from services.usage.convert.fields import text
from services.usage.usecases.calls import Calls, check_size


class CallRecordServicer(call_record_service_pb2_grpc.CallRecordServiceServicer):
    """Takes calls in and shows them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def IngestCallRecords(
        self, request: pb.IngestCallRecordsRequest, context: grpc.ServicerContext
    ) -> pb.IngestCallRecordsResponse:
        """Store a batch."""
        check_size(len(request.call_records))
        numbering = convert.numbering(request.numbering)
        verdicts = self._calls.take(list(convert.records(request.call_records, numbering)))
        return convert.ingest_response(request.call_records, verdicts)

    def ImportCallRecords(
        self, request_iterator: Iterator[pb.ImportCallRecordsRequest], context: grpc.ServicerContext
    ) -> pb.ImportCallRecordsResponse:
        """Store a file."""
        with self._calls.imports.held():
            first = next(request_iterator, pb.ImportCallRecordsRequest())
            found = self._calls.read(
                _chunks(first, request_iterator),
                encoding=convert.encoding(first),
                delimiter=convert.delimiter(first),
                options=convert.options(first),
                numbers=convert.file_numbering(first),
            )
        return convert.report(found)

    def ListCallRecords(
        self, request: pb.ListCallRecordsRequest, context: grpc.ServicerContext
    ) -> pb.ListCallRecordsResponse:
        """Show a customer's calls."""
        customer_id = text(request.customer_id, "customer_id")
        found, token = self._calls.page(customer_id, convert.chosen(request), request.page_size, request.page_token)
        return pb.ListCallRecordsResponse(
            call_records=[convert.shown(stored, customer_id) for stored in found], next_page_token=token
        )


def _chunks(first: pb.ImportCallRecordsRequest, rest: Iterator[pb.ImportCallRecordsRequest]) -> Iterator[bytes]:
    """Yield the file's bytes.

    Raises:
        InvalidArgument: options behind the first request.
    """
    yield first.chunk
    for request in rest:
        options = [field.name for field, _ in request.ListFields() if field.name != "chunk"]
        if options:
            raise InvalidArgument.at(
                options[0], "is read in the first message only; send it there", reason="LATE_OPTION"
            )
        yield request.chunk
