"""Call records: one by one, as files of two layouts, and what meters make of them. All calls are made up."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

import grpc
import pytest
from calling import Caller, counts, points
from eventually import eventually
from google.type import decimal_pb2
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from usage_harness import Client, timestamp, utc

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit.channel import open_channel
from services.kit.worker import Worker
from services.usage.__main__ import build_server
from services.usage.settings import Settings

START = utc(2026, 10, 1)
END = utc(2026, 11, 1)
LONDON, LONDON_2 = "+442079460018", "+442079460019"
MUMBAI_MOBILE = "+919876543210"
NUMBERING = pb.Numbering(default_region="IN", own_prefixes=["+442079460018"])

HEADER = "id,account,from,to,start,duration,billsec,status\n"


@pytest.fixture(scope="module")
def channel(migrated: Settings, metric_reader: InMemoryMetricReader) -> Iterator[grpc.Channel]:  # noqa: ARG001 - the server reports to it
    server = build_server(migrated)
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        yield channel
    server.stop()


@pytest.fixture(scope="module")
def client(channel: grpc.Channel) -> Client:
    client = Client.on(channel)
    client.create_meter("calls", event_type="call.record", unit="calls")
    client.create_meter("call_seconds", event_type="call.record", quantity="billable_seconds", unit="s")
    return client


@pytest.fixture(scope="module")
def caller(channel: grpc.Channel, client: Client) -> Caller:  # noqa: ARG001 - it makes the meters
    return Caller(channel)


@pytest.fixture
def customer(client: Client) -> str:
    return client.put_customer()


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


class TestRecords:
    def test_a_call_is_stored_once_with_what_its_numbers_say(self, caller: Caller, customer: str) -> None:
        # 0 98765 43210 is dialled in India: an Indian mobile number, whose national destination code is 98765.
        call = record(customer, "c1", "098765 43210", trunk="trunk-1")
        assert counts(ingest(caller, call)) == (1, 0, 0, 0, 0)
        assert counts(ingest(caller, call)) == (0, 1, 0, 0, 0)
        (stored,) = caller.calls(customer)
        assert (stored.caller, stored.callee, stored.country) == (LONDON, MUMBAI_MOBILE, "IN")
        assert (stored.destination_prefix, stored.number_type, stored.trunk) == ("+9198765", "mobile", "trunk-1")
        assert stored.call_type == pb.CALL_TYPE_OUTBOUND
        assert stored.disposition == pb.DISPOSITION_ANSWERED
        assert (stored.duration_seconds.value, stored.billable_seconds.value) == ("65", "65")
        assert (stored.source, stored.start_time) == ("cdr", timestamp(START))

    def test_the_same_call_written_otherwise_is_the_same(self, caller: Caller, customer: str) -> None:
        first = record(customer, "c1", "0091 98765 43210")
        second = record(customer, "c1", "+91-98765-43210", duration_seconds=decimal_pb2.Decimal(value="65.0"))
        assert counts(ingest(caller, first)) == (1, 0, 0, 0, 0)
        assert counts(ingest(caller, second)) == (0, 1, 0, 0, 0)
        longer = record(customer, "c1", duration_seconds=decimal_pb2.Decimal(value="66"))
        assert counts(ingest(caller, longer)) == (0, 0, 1, 0, 0)

    @pytest.mark.parametrize(
        ("caller_number", "callee", "expected"),
        [
            ("1001", "1002", pb.CALL_TYPE_INTERNAL),
            ("1001", MUMBAI_MOBILE, pb.CALL_TYPE_OUTBOUND),
            (MUMBAI_MOBILE, "1001", pb.CALL_TYPE_INBOUND),
            (MUMBAI_MOBILE, LONDON, pb.CALL_TYPE_INBOUND),
            ("anonymous", LONDON, pb.CALL_TYPE_INBOUND),
            ("1001", LONDON, pb.CALL_TYPE_INTERNAL),
            # 1800 numbers of India, 800 numbers of all countries.
            ("1001", "1800 11 4000", pb.CALL_TYPE_TOLL_FREE),
            ("1001", "+800 1234 5678", pb.CALL_TYPE_TOLL_FREE),
            (LONDON_2, LONDON_2, pb.CALL_TYPE_OUTBOUND),
        ],
    )
    def test_the_type_follows_from_the_numbers(
        self, caller: Caller, customer: str, caller_number: str, callee: str, expected: int
    ) -> None:
        assert ingest(caller, record(customer, "c", callee, caller=caller_number)).accepted == 1
        assert caller.calls(customer)[0].call_type == expected

    def test_what_is_given_is_kept(self, caller: Caller, customer: str) -> None:
        call = record(
            customer,
            "c",
            call_type=pb.CALL_TYPE_INBOUND,
            disposition=pb.DISPOSITION_BUSY,
            billable_seconds=decimal_pb2.Decimal(value="1.5"),
        )
        assert ingest(caller, call).accepted == 1
        (stored,) = caller.calls(customer)
        assert (stored.call_type, stored.disposition) == (pb.CALL_TYPE_INBOUND, pb.DISPOSITION_BUSY)
        assert stored.billable_seconds.value == "1.5"

    def test_a_busy_call_has_no_billable_seconds(self, caller: Caller, customer: str) -> None:
        assert ingest(caller, record(customer, "c", disposition=pb.DISPOSITION_BUSY)).accepted == 1
        (stored,) = caller.calls(customer)
        assert (stored.duration_seconds.value, stored.billable_seconds.value) == ("65", "0")

    @pytest.mark.parametrize(
        ("change", "field", "reason"),
        [
            ({"id": ""}, "id", "MISSING"),
            ({"id": "x" * 257}, "id", "TOO_LONG"),
            ({"callee": ""}, "callee", "MISSING"),
            ({"callee": "12\0"}, "callee", "BAD_NUMBER"),
            ({"callee": "+4412"}, "callee", "BAD_NUMBER"),
            ({"callee": "not a number"}, "callee", "BAD_NUMBER"),
            ({"callee": "9" * 65}, "callee", "BAD_NUMBER"),
            ({"caller": "+0123"}, "caller", "BAD_NUMBER"),
            ({"trunk": "a\0"}, "trunk", "NUL"),
            ({"trunk": "x" * 257}, "trunk", "TOO_LONG"),
            ({"source": "x" * 257}, "source", "TOO_LONG"),
            ({"trace_id": "abc"}, "trace_id", "BAD_TRACE_ID"),
            ({"duration_seconds": decimal_pb2.Decimal(value="NaN")}, "duration_seconds", "BAD_DURATION"),
            ({"duration_seconds": decimal_pb2.Decimal(value="-1")}, "duration_seconds", "BAD_DURATION"),
            ({"duration_seconds": decimal_pb2.Decimal(value="")}, "duration_seconds", "BAD_DURATION"),
            ({"billable_seconds": decimal_pb2.Decimal(value="1" * 29)}, "billable_seconds", "BAD_DURATION"),
            ({"billable_seconds": decimal_pb2.Decimal(value="31622401")}, "billable_seconds", "BAD_DURATION"),
            ({"call_type": 77}, "call_type", "UNKNOWN_VALUE"),
            ({"disposition": 77}, "disposition", "UNKNOWN_VALUE"),
            ({"start_time": timestamp(utc(1999, 12, 31))}, "start_time", "TIME_OUT_OF_RANGE"),
            ({"start_time": timestamp(utc(9999, 12, 31))}, "start_time", "TIME_IN_FUTURE"),
            ({"start_time": None}, "start_time", "MISSING"),
            ({"customer_key": "acme"}, "customer_key", "TWO_CUSTOMERS"),
            ({"customer_id": ""}, "customer_id", "NO_CUSTOMER"),
        ],
    )
    def test_a_bad_record_rejects_itself_and_names_its_field(
        self, caller: Caller, customer: str, change: dict[str, object], field: str, reason: str
    ) -> None:
        bad = record(customer, "bad")
        for name, value in change.items():
            if value is None:
                bad.ClearField(name)  # type: ignore[arg-type]
            elif isinstance(value, str | int):
                setattr(bad, name, value)
            else:
                getattr(bad, name).CopyFrom(value)
        answer = ingest(caller, record(customer, "before"), bad, record(customer, "after"))
        assert counts(answer) == (2, 0, 0, 0, 1)
        result = answer.results[1]
        assert (result.index, result.field, result.reason) == (1, field, reason), result
        assert result.message

    def test_a_national_number_without_a_region_says_what_to_do(self, caller: Caller, customer: str) -> None:
        answer = ingest(caller, record(customer, "c", "02079460018"), numbering=pb.Numbering())
        assert "name the default_region" in answer.results[0].message

    @pytest.mark.parametrize(
        ("numbering", "field"),
        [
            (pb.Numbering(default_region="XX"), "numbering.default_region"),
            (pb.Numbering(own_prefixes=["44"]), "numbering.own_prefixes[0]"),
            (pb.Numbering(own_prefixes=["+44"] * 1001), "numbering.own_prefixes"),
            (pb.Numbering(extension_digits=9), "numbering.extension_digits"),
            (pb.Numbering(extension_digits=-1), "numbering.extension_digits"),
        ],
    )
    def test_a_bad_numbering_is_refused(
        self, caller: Caller, customer: str, numbering: pb.Numbering, field: str
    ) -> None:
        error = refused(ingest, caller, record(customer, "c"), numbering=numbering)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(f"{field}: ")

    @pytest.mark.parametrize("count", [0, 10_001])
    def test_an_empty_or_too_large_batch_is_refused(self, caller: Caller, customer: str, count: int) -> None:
        error = refused(ingest, caller, *[record(customer, "c")] * count)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_an_unknown_customers_call_is_held(self, caller: Caller, client: Client) -> None:
        call = record("", "held-1", customer_key="later-telecom")
        assert counts(ingest(caller, call)) == (0, 0, 0, 1, 0)
        client.put_customer(keys=["later-telecom"])
        request = events_pb.ReplayQuarantinedEventsRequest(customer_key="later-telecom", request_id="held-1")
        assert client.events.ReplayQuarantinedEvents(request).accepted == 1
        assert counts(ingest(caller, call)) == (0, 1, 0, 0, 0)


class TestFiles:
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

    def test_bad_rows_are_named_and_the_rest_goes_in(
        self, caller: Caller, client: Client, worker: Worker, customer: str
    ) -> None:
        answer = caller.send(HEADER + self.ROWS, customer_id=customer)
        assert answer.rows == 7
        assert counts(answer) == (4, 0, 0, 0, 3)
        assert [(problem.line, problem.column, problem.reason) for problem in answer.problems] == [
            (3, "to", "BAD_NUMBER"),
            (5, "start", "BAD_TIME"),
            (7, "duration", "BAD_DURATION"),
        ]
        assert all(problem.outcome == events_pb.OUTCOME_REJECTED and problem.message for problem in answer.problems)
        # India: k1 with 60 s and k5 with 0; USA: k3 with 90 s; an extension: k7 with 10.25 s.
        assert [(each.country, each.calls, each.billable_seconds.value) for each in answer.destinations] == [
            ("IN", 2, "60"),
            ("", 1, "10.25"),
            ("US", 1, "90"),
        ]
        assert client.total(customer, "calls", START, END) == 4
        assert client.total(customer, "call_seconds", START, END) == Decimal("160.25")

    def test_the_same_file_again_counts_nothing(
        self, caller: Caller, client: Client, worker: Worker, customer: str
    ) -> None:
        first = caller.send(HEADER + self.ROWS, customer_id=customer)
        again = caller.send(HEADER + self.ROWS, customer_id=customer, chunk=7)
        assert counts(again) == (0, 4, 0, 0, 3)
        assert again.problems == first.problems
        assert client.total(customer, "calls", START, END) == 4

    def test_a_changed_row_is_a_conflict(self, caller: Caller, customer: str) -> None:
        caller.send(HEADER + self.ROWS, customer_id=customer)
        changed = caller.send(HEADER + self.ROWS.replace("70,60", "70,61", 1), customer_id=customer)
        assert counts(changed) == (0, 3, 1, 0, 3)
        assert changed.problems[0].line == 2
        assert changed.problems[0].outcome == events_pb.OUTCOME_CONFLICT

    @pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100_000])
    def test_chunks_may_be_cut_anywhere(self, caller: Caller, customer: str, chunk: int) -> None:
        # A byte order mark, CRLF, a line end in quotes, characters of two to four bytes, doubled quotes.
        text = (
            "\ufeffCall ID;Trunk;A Number;B-Number;Start Time;Duration\r\n"
            f'1;"Zürich\r\n""A"" 🙂";{LONDON};{MUMBAI_MOBILE};2026-10-05T10:00:00+02:00;60\r\n'
            f"2;東京;{LONDON};{MUMBAI_MOBILE};2026-10-05T10:00:00Z;61\r\n"
        )
        answer = caller.send(text, chunk=chunk, customer_id=customer)
        assert counts(answer) == (2, 0, 0, 0, 0)
        assert answer.delimiter == ";"
        first, second = caller.calls(customer)
        assert (first.trunk, first.start_time) == ('Zürich\n"A" 🙂', timestamp(utc(2026, 10, 5, 8)))
        assert (second.trunk, second.start_time) == ("東京", timestamp(utc(2026, 10, 5, 10)))

    def test_latin_1_is_read_when_given_and_a_bad_row_otherwise(self, caller: Caller, customer: str) -> None:
        text = HEADER.replace("id", "id,trunk", 1) + f"1,Zürich,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n"
        data = text.encode("iso-8859-1")
        wrong = caller.send(data, customer_id=customer)
        assert counts(wrong) == (0, 0, 0, 0, 1)
        assert (wrong.problems[0].column, wrong.problems[0].reason) == ("trunk", "BAD_ENCODING")
        assert caller.send(data, customer_id=customer, encoding="ISO-8859-1").accepted == 1
        assert caller.calls(customer)[0].trunk == "Zürich"

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_the_delimiter_is_told_or_given(self, caller: Caller, customer: str, delimiter: str) -> None:
        text = (HEADER + self.ROWS).replace(",", delimiter)
        assert caller.send(text, customer_id=customer).delimiter == delimiter
        assert counts(caller.send(text, customer_id=customer, delimiter=delimiter)) == (0, 4, 0, 0, 3)

    def test_customers_are_found_in_a_column(self, caller: Caller, client: Client) -> None:
        first, second = client.put_customer(keys=["T-1"]), client.put_customer()
        rows = "".join(
            f"c{index},{account},{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,ANSWERED\n"
            for index, account in enumerate(["T-1", second, "T-unknown", ""])
        )
        answer = caller.send(HEADER + rows)
        assert counts(answer) == (2, 0, 0, 1, 1)
        assert (answer.problems[0].column, answer.problems[0].reason) == ("account", "NO_CUSTOMER")
        assert [call.id for call in caller.calls(first)] == ["c0"]
        assert [call.id for call in caller.calls(second)] == ["c1"]

    def test_columns_are_named_where_their_words_are_not_known(self, caller: Caller, customer: str) -> None:
        text = f"Nr,Gewählt,Beginn,Dauer\n1,{MUMBAI_MOBILE},05.10.2026 10:00:00,00:02\n"
        error = refused(caller.send, text, customer_id=customer)
        assert error.details().startswith("columns: the first row names no callee and no start_time: 'Nr', 'Gewählt'")
        columns = ["id=Nr", "callee=Gewählt", "start_time=Beginn", "duration=Dauer"]
        answer = caller.send(text, customer_id=customer, columns=columns)
        assert counts(answer) == (1, 0, 0, 0, 0)
        assert answer.time_format == "%d.%m.%Y %H:%M:%S"
        (call,) = caller.calls(customer)
        assert (call.id, call.duration_seconds.value) == ("1", "2")

    def test_rows_without_an_id_count_each_and_the_file_once(self, caller: Caller, customer: str) -> None:
        row = f"{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,5\n"
        text = "from,to,start,duration\n" + row * 3
        assert counts(caller.send(text, customer_id=customer)) == (3, 0, 0, 0, 0)
        assert counts(caller.send(text, customer_id=customer)) == (0, 3, 0, 0, 0)
        # A later export that has one more.
        assert counts(caller.send(text + row, customer_id=customer)) == (1, 3, 0, 0, 0)

    def test_a_stray_quote_costs_its_row_only(self, caller: Caller, customer: str) -> None:
        rows = [f"{index},,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n" for index in range(200)]
        rows[3] = f'3,",{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n'
        rows[150] = f'"150"x,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n'
        # Nothing closes this one before the end.
        rows[199] = f'199,,"{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n'
        answer = caller.send(HEADER + "".join(rows), customer_id=customer)
        assert counts(answer) == (197, 0, 0, 0, 3)
        # The header is line 1.
        assert [(problem.line, problem.reason) for problem in answer.problems] == [
            (5, "BAD_ROW"),
            (152, "BAD_ROW"),
            (201, "BAD_ROW"),
        ]

    def test_rows_of_other_lengths_and_empty_lines(self, caller: Caller, customer: str) -> None:
        good = f"1,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK"
        text = HEADER + f"\n{good},\n\n1,2\n{good},x\r\r\n"
        answer = caller.send(text, customer_id=customer)
        assert counts(answer) == (1, 0, 0, 0, 2)
        assert [(problem.line, problem.reason) for problem in answer.problems] == [
            (5, "COLUMN_COUNT"),
            (6, "COLUMN_COUNT"),
        ]

    def test_problems_are_counted_all_and_listed_to_a_bound(self, caller: Caller, customer: str) -> None:
        bad = "1,,,nobody,2026-10-05 10:00:00,1,1,OK\n"
        answer = caller.send(HEADER + bad * 2_500, customer_id=customer)
        assert (answer.rows, answer.rejected, len(answer.problems)) == (2_500, 2_500, 1_000)
        assert answer.problems[-1].line == 1_001

    def test_a_huge_line_costs_one_row(self, caller: Caller, customer: str) -> None:
        good = f"1,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n"
        answer = caller.send(HEADER + "x" * 300_000 + "\n" + good, customer_id=customer)
        assert counts(answer) == (1, 0, 0, 0, 1)
        assert answer.problems[0].line == 2

    @pytest.mark.parametrize("text", ["", "\n\n", HEADER, "\ufeff"])
    def test_a_file_without_rows_is_none(self, caller: Caller, customer: str, text: str) -> None:
        assert caller.send(text, customer_id=customer).rows == 0

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"customer_key": "x"}, "customer_key"),
            ({"delimiter": "x"}, "delimiter"),
            ({"encoding": "utf-7"}, "encoding"),
            ({"layout": 9}, "layout"),
            ({"time_zone": "Mars/Olympus"}, "time_zone"),
            ({"time_format": "%H:%M"}, "time_format"),
            ({"time_format": "%Q"}, "time_format"),
            ({"time_format": "%Y%Y"}, "time_format"),
            ({"columns": ["callee"]}, "columns[0]"),
            ({"columns": ["colour=x"]}, "columns[0]"),
            ({"columns": ["callee=to", "callee=from"]}, "columns[1]"),
            ({"columns": ["callee=absent"]}, "columns"),
            ({"default_region": "Z"}, "default_region"),
            ({"own_prefixes": ["x"]}, "own_prefixes[0]"),
            ({"source": "x\0"}, "source"),
        ],
    )
    def test_bad_options_are_refused(
        self, caller: Caller, customer: str, options: dict[str, object], field: str
    ) -> None:
        error = refused(caller.send, HEADER + self.ROWS, **{"customer_id": customer, **options})
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(f"{field}: "), error.details()

    def test_options_behind_the_first_message_are_refused(self, caller: Caller, customer: str) -> None:
        requests = [
            pb.ImportCallRecordsRequest(customer_id=customer, chunk=HEADER.encode()),
            pb.ImportCallRecordsRequest(source="late"),
        ]
        error = refused(caller.stub.ImportCallRecords, iter(requests), timeout=10)
        assert error.details().startswith("source: ")

    def test_a_file_without_a_header_is_refused_without_its_numbers(self, caller: Caller, customer: str) -> None:
        error = refused(caller.send, self.ROWS, customer_id=customer)
        assert "'+4420…'" in error.details()
        assert LONDON not in error.details()

    @pytest.mark.parametrize("text", ["just words\n" * 3, "\ufffe".encode("utf-16-le").decode("latin-1")])
    def test_what_is_no_csv_is_refused(self, caller: Caller, customer: str, text: str) -> None:
        error = refused(caller.send, text.encode("latin-1"), customer_id=customer)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_what_came_before_a_broken_stream_is_stored(self, caller: Caller, customer: str) -> None:
        # 4,500 calls: two transactions of 2,000 go in before the caller breaks off.
        rows = [f"{index},,,{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n" for index in range(4_500)]

        def broken() -> Iterator[pb.ImportCallRecordsRequest]:
            yield pb.ImportCallRecordsRequest(customer_id=customer, chunk=HEADER.encode())
            yield pb.ImportCallRecordsRequest(chunk="".join(rows).encode())
            eventually(lambda: len(caller.calls(customer, page_size=1_000)) == 4_000)
            raise OSError("the caller's disk is gone")

        refused(caller.stub.ImportCallRecords, broken(), timeout=90)
        answer = caller.send(HEADER + "".join(rows), customer_id=customer)
        assert counts(answer) == (500, 4_000, 0, 0, 0)

    def test_too_many_files_at_a_time_are_refused_and_room_comes_free(self, caller: Caller, customer: str) -> None:
        closing = threading.Event()

        def waiting() -> Iterator[pb.ImportCallRecordsRequest]:
            yield pb.ImportCallRecordsRequest(customer_id=customer, chunk=HEADER.encode())
            closing.wait(60)

        def code() -> grpc.StatusCode | None:
            try:
                caller.send(HEADER, customer_id=customer)
            except grpc.RpcError as error:
                return error.code()
            return None

        running = [caller.stub.ImportCallRecords.future(waiting(), timeout=60) for _ in range(4)]
        assert eventually(code) is grpc.StatusCode.RESOURCE_EXHAUSTED
        closing.set()
        assert [call.result().rows for call in running] == [0] * 4
        assert caller.send(HEADER, customer_id=customer).rows == 0


class TestTimes:
    def send(self, caller: Caller, customer: str, *times: str, **options: object) -> pb.ImportCallRecordsResponse:
        rows = "".join(f'{index},{MUMBAI_MOBILE},"{time}"\n' for index, time in enumerate(times))
        return caller.send("id,to,start\n" + rows, customer_id=customer, **options)

    def starts(self, caller: Caller, customer: str) -> Sequence[str]:
        return [call.start_time.ToJsonString() for call in caller.calls(customer)]

    @pytest.mark.parametrize(
        ("time", "form", "expected"),
        [
            ("2026-10-05 10:00:00", "iso", "2026-10-05T10:00:00Z"),
            ("2026-10-05T10:00:00.1234567Z", "iso", "2026-10-05T10:00:00.123456Z"),
            ("1791194400", "unix", "2026-10-05T10:00:00Z"),
            ("1791194400.5", "unix", "2026-10-05T10:00:00.500Z"),
            ("1791194400250", "unix", "2026-10-05T10:00:00.250Z"),
            ("25/10/2026 10:00", "%d/%m/%Y %H:%M", "2026-10-25T10:00:00Z"),
            ("10/25/2026 10:00:00 PM", "%m/%d/%Y %I:%M:%S %p", "2026-10-25T22:00:00Z"),
            ("20261005100000", "%Y%m%d%H%M%S", "2026-10-05T10:00:00Z"),
            ("05-Oct-2026 10:00:00", "%d-%b-%Y %H:%M:%S", "2026-10-05T10:00:00Z"),
        ],
    )
    def test_formats_are_told(self, caller: Caller, customer: str, time: str, form: str, expected: str) -> None:
        answer = self.send(caller, customer, time)
        assert (answer.accepted, answer.time_format) == (1, form)
        assert self.starts(caller, customer) == [expected]

    def test_one_row_tells_day_from_month_for_all(self, caller: Caller, customer: str) -> None:
        assert self.send(caller, customer, "05/10/2026 10:00", "13/10/2026 10:00").accepted == 2
        assert self.starts(caller, customer) == ["2026-10-05T10:00:00Z", "2026-10-13T10:00:00Z"]

    def test_what_could_be_either_is_refused_until_it_is_said(self, caller: Caller, customer: str) -> None:
        error = refused(self.send, caller, customer, "05/10/2026 10:00")
        assert "'%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'; say which" in error.details()
        assert self.send(caller, customer, "05/10/2026 10:00", time_format="%m/%d/%Y %H:%M").accepted == 1
        assert self.starts(caller, customer) == ["2026-05-10T10:00:00Z"]

    def test_an_unknown_format_is_refused(self, caller: Caller, customer: str) -> None:
        assert refused(self.send, caller, customer, "5th of October").details().startswith("time_format: no known")

    def test_times_are_of_the_zone_that_is_given(self, caller: Caller, customer: str) -> None:
        # India is 5:30 ahead of UTC; a time with an offset is what it says.
        times = ["2026-10-05 10:00:00", "2026-10-05 10:00:00+00:00"]
        assert self.send(caller, customer, *times, time_zone="Asia/Kolkata").accepted == 2
        assert self.starts(caller, customer) == ["2026-10-05T04:30:00Z", "2026-10-05T10:00:00Z"]

    def test_local_times_that_occur_twice_or_never(self, caller: Caller, customer: str) -> None:
        # Berlin, 2025: clocks go from 03:00 back to 02:00 on 26 October (01:00 UTC), so 02:30 is first at 00:30 UTC.
        # On 30 March they go from 02:00 to 03:00: there is no 02:30.
        # (Accepted from: 400 days back from now, and the clock of tests is the real one.)
        times = ["2026-10-25 02:30:00", "2026-03-29 02:30:00"]
        answer = self.send(caller, customer, *times, time_zone="Europe/Berlin")
        assert counts(answer) == (1, 0, 0, 0, 1)
        assert (answer.problems[0].line, answer.problems[0].reason) == (3, "BAD_TIME")
        assert "does not occur in Europe/Berlin" in answer.problems[0].message
        assert self.starts(caller, customer) == ["2026-10-25T00:30:00Z"]

    def test_an_end_gives_the_duration(self, caller: Caller, customer: str) -> None:
        text = (
            "id,to,start,answer,end\n"
            f"1,{MUMBAI_MOBILE},2026-10-05 10:00:00,2026-10-05 10:00:10,2026-10-05 10:01:00\n"
            f"2,{MUMBAI_MOBILE},2026-10-05 11:00:00,,2026-10-05 11:00:30\n"
            f"3,{MUMBAI_MOBILE},2026-10-05 12:00:00,,2026-10-05 11:00:30\n"
        )
        answer = caller.send(text, customer_id=customer)
        assert counts(answer) == (2, 0, 0, 0, 1)
        assert (answer.problems[0].column, answer.problems[0].reason) == ("end", "BAD_TIME")
        found = [
            (call.duration_seconds.value, call.billable_seconds.value, call.disposition)
            for call in caller.calls(customer)
        ]
        assert found == [("60", "50", pb.DISPOSITION_ANSWERED), ("30", "0", pb.DISPOSITION_NO_ANSWER)]


def asterisk(
    *,
    src: str = "1001",
    dst: str = MUMBAI_MOBILE,
    context: str = "from-internal",
    channel: str = "PJSIP/1001-00000001",
    other: str = "PJSIP/carrier-00000002",
    ended: str = "ANSWERED",
    tail: str = ',"1759658400.1",""',
) -> str:
    """A row as Asterisk's cdr-csv writes it: texts in quotes, numbers without, no header. Made up."""
    return (
        f'"","{src}","{dst}","{context}","""Bob"" <1001>","{channel}","{other}","Dial","PJSIP/carrier,30",'
        f'"2026-10-05 10:00:00","2026-10-05 10:00:05","2026-10-05 10:01:05",65,60,"{ended}","DOCUMENTATION"{tail}\n'
    )


class TestAsterisk:
    def test_its_layout_is_told(self, caller: Caller, customer: str) -> None:
        text = asterisk() + asterisk(
            src=LONDON,
            dst="+442079460000",
            context="from-pstn",
            channel="SIP/in-0001",
            other="",
            tail=',"1759658400.7",""',
        )
        answer = caller.send(text, customer_id=customer)
        assert (counts(answer), answer.layout) == ((2, 0, 0, 0, 0), pb.CALL_RECORD_LAYOUT_ASTERISK)
        by_id = {call.id: call for call in caller.calls(customer)}
        out = by_id["1759658400.1/PJSIP/carrier-00000002"]
        assert (out.caller, out.callee, out.trunk) == ("1001", MUMBAI_MOBILE, "PJSIP/carrier")
        assert (out.duration_seconds.value, out.billable_seconds.value) == ("65", "60")
        assert (out.call_type, out.disposition) == (pb.CALL_TYPE_OUTBOUND, pb.DISPOSITION_ANSWERED)
        inward = by_id["1759658400.7"]
        assert (inward.call_type, inward.trunk) == (pb.CALL_TYPE_INBOUND, "SIP/in")

    def test_legs_of_one_channel_are_calls_of_their_own(self, caller: Caller, customer: str) -> None:
        text = asterisk(other="PJSIP/a-00000002", ended="NO ANSWER") + asterisk(other="PJSIP/b-00000003")
        assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
        assert counts(caller.send(text, customer_id=customer)) == (0, 2, 0, 0, 0)

    def test_newer_columns_give_the_sequence(self, caller: Caller, customer: str) -> None:
        text = "".join(asterisk(tail=f',"1759658400.1","","","1759658400.1",{number}') for number in (7, 8))
        assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
        assert {call.id for call in caller.calls(customer)} == {"1759658400.1/7", "1759658400.1/8"}

    @pytest.mark.parametrize("tail", ["", ',"sales"'])
    def test_a_missing_uniqueid_is_made_up_for(self, caller: Caller, customer: str, tail: str) -> None:
        text = asterisk(tail=tail) * 2
        assert counts(caller.send(text, customer_id=customer)) == (2, 0, 0, 0, 0)
        assert counts(caller.send(text, customer_id=customer)) == (0, 2, 0, 0, 0)

    def test_its_dispositions(self, caller: Caller, customer: str) -> None:
        words = ["ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION"]
        rows = [asterisk(ended=word, tail=f',"1759658400.{index}",""') for index, word in enumerate(words)]
        rows.append(asterisk(ended="ODD", tail=',"1759658400.9",""'))
        answer = caller.send("".join(rows), customer_id=customer)
        assert counts(answer) == (5, 0, 0, 0, 1)
        problem = answer.problems[0]
        assert (problem.line, problem.column, problem.reason) == (6, "disposition", "BAD_DISPOSITION")
        found = {call.disposition for call in caller.calls(customer)}
        assert found == {
            pb.DISPOSITION_ANSWERED,
            pb.DISPOSITION_NO_ANSWER,
            pb.DISPOSITION_BUSY,
            pb.DISPOSITION_FAILED,
            pb.DISPOSITION_CONGESTION,
        }

    def test_its_account_code_names_the_customer(self, caller: Caller, client: Client) -> None:
        customer = client.put_customer(keys=["acct-7"])
        assert caller.send(asterisk().replace('""', '"acct-7"', 1)).accepted == 1
        assert len(caller.calls(customer)) == 1


@pytest.fixture(scope="module")
def listed(caller: Caller, client: Client) -> str:
    customer = client.put_customer()
    callees = [MUMBAI_MOBILE, LONDON, LONDON_2, "+441132960001", "1001"]
    calls = [
        record(customer, f"c{index}", callee, start_time=timestamp(START + timedelta(hours=index)))
        for index, callee in enumerate(callees)
    ]
    assert ingest(caller, *calls).accepted == 5
    return customer


class TestLists:
    def ids(self, caller: Caller, customer: str, **chosen: object) -> list[str]:
        return [call.id for call in caller.calls(customer, **chosen)]

    def test_by_time_type_and_destination(self, caller: Caller, listed: str) -> None:
        assert self.ids(caller, listed) == ["c0", "c1", "c2", "c3", "c4"]
        times = {"start_time": timestamp(START + timedelta(hours=1)), "end_time": timestamp(START + timedelta(hours=3))}
        assert self.ids(caller, listed, **times) == ["c1", "c2"]
        assert self.ids(caller, listed, call_type=pb.CALL_TYPE_OUTBOUND) == ["c0", "c2", "c3"]
        # The caller is one of the customer's own numbers.
        assert self.ids(caller, listed, call_type=pb.CALL_TYPE_INTERNAL) == ["c1", "c4"]
        assert self.ids(caller, listed, country="GB") == ["c1", "c2", "c3"]
        assert self.ids(caller, listed, callee_prefix="+4420") == ["c1", "c2"]
        assert self.ids(caller, listed, callee_prefix="+44%") == []

    def test_page_by_page(self, caller: Caller, listed: str) -> None:
        assert self.ids(caller, listed, page_size=2) == ["c0", "c1", "c2", "c3", "c4"]
        first = caller.stub.ListCallRecords(pb.ListCallRecordsRequest(customer_id=listed, page_size=2))
        other = pb.ListCallRecordsRequest(customer_id=listed, page_token=first.next_page_token, country="GB")
        assert refused(caller.stub.ListCallRecords, other).code() is grpc.StatusCode.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        ("chosen", "code"),
        [
            ({"customer_id": "cus_none"}, grpc.StatusCode.NOT_FOUND),
            ({"customer_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"country": "\0"}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"callee_prefix": "+" * 17}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"call_type": 77}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"page_size": -1}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"page_token": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
        ],
    )
    def test_bad_questions(self, caller: Caller, listed: str, chosen: dict[str, object], code: grpc.StatusCode) -> None:
        request = pb.ListCallRecordsRequest(**{"customer_id": listed, **chosen})  # type: ignore[arg-type]
        assert refused(caller.stub.ListCallRecords, request).code() is code


class TestTelemetry:
    def test_counts_by_status_type_and_country(
        self, caller: Caller, customer: str, metric_reader: InMemoryMetricReader
    ) -> None:
        before = points(metric_reader, "billing.cdr.processed")
        caller.send(HEADER + TestFiles.ROWS, customer_id=customer)
        after = points(metric_reader, "billing.cdr.processed")
        moved = {labels: value - before.get(labels, 0) for labels, value in after.items()}
        assert {labels: value for labels, value in moved.items() if value} == {
            (("call_type", "outbound"), ("destination", "IN"), ("status", "success")): 2,
            (("call_type", "outbound"), ("destination", "US"), ("status", "success")): 1,
            (("call_type", "inbound"), ("destination", "internal"), ("status", "success")): 1,
            (("call_type", "unknown"), ("destination", "unknown"), ("status", "failed")): 3,
        }
        assert points(metric_reader, "billing.cdr.processing.duration")[(("status", "success"),)] > 0

    def test_a_span_has_the_counts_and_nothing_has_the_numbers(
        self,
        caller: Caller,
        customer: str,
        spans: InMemorySpanExporter,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with caplog.at_level("INFO"):
            caller.send(HEADER + TestFiles.ROWS, customer_id=customer)
        (span,) = [span for span in spans.get_finished_spans() if span.name == "read call records"]
        assert span.attributes is not None
        assert (span.attributes["meterscope.calls.accepted"], span.attributes["meterscope.calls.rejected"]) == (4, 3)
        (line,) = [record for record in caplog.records if record.message == "call records imported"]
        assert vars(line)["accepted"] == 4
        told = str([vars(record) for record in caplog.records]) + str(
            [span.to_json() for span in spans.get_finished_spans()]
        )
        assert MUMBAI_MOBILE[1:] not in told
        assert LONDON[1:] not in told
