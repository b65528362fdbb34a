"""Files of calls as the service takes them, row by row. All calls are made up."""

import threading
from collections.abc import Iterator
from decimal import Decimal

import grpc
import pytest
from calling import END, HEADER, LONDON, MUMBAI_MOBILE, ROWS, START, Caller, counts, refused
from eventually import eventually
from usage_harness import Client, timestamp, utc

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2 as events_pb


@pytest.mark.usefixtures("worker")
def test_bad_rows_are_named_and_the_rest_goes_in(caller: Caller, client: Client, customer: str) -> None:
    answer = caller.send(HEADER + ROWS, customer_id=customer)
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


@pytest.mark.usefixtures("worker")
def test_the_same_file_again_counts_nothing(caller: Caller, client: Client, customer: str) -> None:
    first = caller.send(HEADER + ROWS, customer_id=customer)
    again = caller.send(HEADER + ROWS, customer_id=customer, chunk=7)
    assert counts(again) == (0, 4, 0, 0, 3)
    assert again.problems == first.problems
    assert client.total(customer, "calls", START, END) == 4


def test_a_changed_row_is_a_conflict(caller: Caller, customer: str) -> None:
    caller.send(HEADER + ROWS, customer_id=customer)
    changed = caller.send(HEADER + ROWS.replace("70,60", "70,61", 1), customer_id=customer)
    assert counts(changed) == (0, 3, 1, 0, 3)
    assert changed.problems[0].line == 2
    assert changed.problems[0].outcome == events_pb.OUTCOME_CONFLICT


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100_000])
def test_chunks_may_be_cut_anywhere(caller: Caller, customer: str, chunk: int) -> None:
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


def test_latin_1_is_read_when_given_and_a_bad_row_otherwise(caller: Caller, customer: str) -> None:
    text = HEADER.replace("id", "id,trunk", 1) + f"1,Zürich,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n"
    data = text.encode("iso-8859-1")
    wrong = caller.send(data, customer_id=customer)
    assert counts(wrong) == (0, 0, 0, 0, 1)
    assert (wrong.problems[0].column, wrong.problems[0].reason) == ("trunk", "BAD_ENCODING")
    assert caller.send(data, customer_id=customer, encoding="ISO-8859-1").accepted == 1
    assert caller.calls(customer)[0].trunk == "Zürich"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_or_given(caller: Caller, customer: str, delimiter: str) -> None:
    text = (HEADER + ROWS).replace(",", delimiter)
    assert caller.send(text, customer_id=customer).delimiter == delimiter
    assert counts(caller.send(text, customer_id=customer, delimiter=delimiter)) == (0, 4, 0, 0, 3)


def test_customers_are_found_in_a_column(caller: Caller, client: Client) -> None:
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


def test_columns_are_named_where_their_words_are_not_known(caller: Caller, customer: str) -> None:
    text = f"Nr,Gewählt,Beginn,Dauer\n1,{MUMBAI_MOBILE},05.10.2026 10:00:00,00:02\n"
    error = refused(caller.send, text, customer_id=customer)
    assert error.details().startswith("columns: the first row names no callee and no start_time: 'Nr', 'Gewählt'")
    columns = ["id=Nr", "callee=Gewählt", "start_time=Beginn", "duration=Dauer"]
    answer = caller.send(text, customer_id=customer, columns=columns)
    assert counts(answer) == (1, 0, 0, 0, 0)
    assert answer.time_format == "%d.%m.%Y %H:%M:%S"
    (call,) = caller.calls(customer)
    assert (call.id, call.duration_seconds.value) == ("1", "2")


def test_rows_without_an_id_count_each_and_the_file_once(caller: Caller, customer: str) -> None:
    row = f"{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,5\n"
    text = "from,to,start,duration\n" + row * 3
    assert counts(caller.send(text, customer_id=customer)) == (3, 0, 0, 0, 0)
    assert counts(caller.send(text, customer_id=customer)) == (0, 3, 0, 0, 0)
    # A later export that has one more.
    assert counts(caller.send(text + row, customer_id=customer)) == (1, 3, 0, 0, 0)


def test_a_stray_quote_costs_its_row_only(caller: Caller, customer: str) -> None:
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


def test_rows_of_other_lengths_and_empty_lines(caller: Caller, customer: str) -> None:
    good = f"1,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK"
    text = HEADER + f"\n{good},\n\n1,2\n{good},x\r\r\n"
    answer = caller.send(text, customer_id=customer)
    assert counts(answer) == (1, 0, 0, 0, 2)
    assert [(problem.line, problem.reason) for problem in answer.problems] == [
        (5, "COLUMN_COUNT"),
        (6, "COLUMN_COUNT"),
    ]


def test_problems_are_counted_all_and_listed_to_a_bound(caller: Caller, customer: str) -> None:
    bad = "1,,,nobody,2026-10-05 10:00:00,1,1,OK\n"
    answer = caller.send(HEADER + bad * 2_500, customer_id=customer)
    assert (answer.rows, answer.rejected, len(answer.problems)) == (2_500, 2_500, 1_000)
    assert answer.problems[-1].line == 1_001


def test_a_huge_line_costs_one_row(caller: Caller, customer: str) -> None:
    good = f"1,,{LONDON},{MUMBAI_MOBILE},2026-10-05 10:00:00,1,1,OK\n"
    answer = caller.send(HEADER + "x" * 300_000 + "\n" + good, customer_id=customer)
    assert counts(answer) == (1, 0, 0, 0, 1)
    assert answer.problems[0].line == 2


@pytest.mark.parametrize("text", ["", "\n\n", HEADER, "\ufeff"])
def test_a_file_without_rows_is_none(caller: Caller, customer: str, text: str) -> None:
    assert caller.send(text, customer_id=customer).rows == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"customer_key": "x"}, "customer_key"),
        ({"delimiter": "x"}, "delimiter"),
        ({"encoding": "utf-7"}, "encoding"),
        ({"layout": 9}, "layout"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "localtime"}, "time_zone"),
        ({"time_zone": "posixrules"}, "time_zone"),
        ({"time_zone": "Factory"}, "time_zone"),
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
def test_bad_options_are_refused(caller: Caller, customer: str, options: dict[str, object], field: str) -> None:
    error = refused(caller.send, HEADER + ROWS, **{"customer_id": customer, **options})
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: "), error.details()


def test_options_behind_the_first_message_are_refused(caller: Caller, customer: str) -> None:
    requests = [
        pb.ImportCallRecordsRequest(customer_id=customer, chunk=HEADER.encode()),
        pb.ImportCallRecordsRequest(source="late"),
    ]
    error = refused(caller.stub.ImportCallRecords, iter(requests), timeout=10)
    assert error.details().startswith("source: ")


def test_a_file_without_a_header_is_refused_without_its_numbers(caller: Caller, customer: str) -> None:
    error = refused(caller.send, ROWS, customer_id=customer)
    assert "'+4420…'" in error.details()
    assert LONDON not in error.details()


@pytest.mark.parametrize("text", ["just words\n" * 3, "\ufffe".encode("utf-16-le").decode("latin-1")])
def test_what_is_no_csv_is_refused(caller: Caller, customer: str, text: str) -> None:
    error = refused(caller.send, text.encode("latin-1"), customer_id=customer)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_came_before_a_broken_stream_is_stored(caller: Caller, customer: str) -> None:
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


def test_too_many_files_at_a_time_are_refused_and_room_comes_free(caller: Caller, customer: str) -> None:
    closing = threading.Event()

    def waiting() -> Iterator[pb.ImportCallRecordsRequest]:
        yield pb.ImportCallRecordsRequest(customer_id=customer, chunk=HEADER.encode())
        closing.wait(60)

    def start() -> grpc.Future:
        return caller.stub.ImportCallRecords.future(waiting(), timeout=60)

    def code() -> grpc.StatusCode | None:
        # One that came while the file below had a place was sent away.
        running[:] = [start() if call.done() else call for call in running]
        try:
            caller.send(HEADER, customer_id=customer)
        except grpc.RpcError as error:
            return error.code()
        return None

    running = [start() for _ in range(4)]
    assert eventually(code) is grpc.StatusCode.RESOURCE_EXHAUSTED
    closing.set()
    assert [call.result().rows for call in running] == [0] * 4
    assert caller.send(HEADER, customer_id=customer).rows == 0
