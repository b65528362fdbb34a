"""Times of calls as files have them. All calls are made up."""

from collections.abc import Sequence

import pytest
from calling import MUMBAI_MOBILE, Caller, counts, refused

from meterscope.usage.v1 import call_record_service_pb2 as pb


def send(caller: Caller, customer: str, *times: str, **options: object) -> pb.ImportCallRecordsResponse:
    rows = "".join(f'{index},{MUMBAI_MOBILE},"{time}"\n' for index, time in enumerate(times))
    return caller.send("id,to,start\n" + rows, customer_id=customer, **options)


def starts(caller: Caller, customer: str) -> Sequence[str]:
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
def test_formats_are_told(caller: Caller, customer: str, time: str, form: str, expected: str) -> None:
    answer = send(caller, customer, time)
    assert (answer.accepted, answer.time_format) == (1, form)
    assert starts(caller, customer) == [expected]


def test_one_row_tells_day_from_month_for_all(caller: Caller, customer: str) -> None:
    assert send(caller, customer, "05/10/2026 10:00", "13/10/2026 10:00").accepted == 2
    assert starts(caller, customer) == ["2026-10-05T10:00:00Z", "2026-10-13T10:00:00Z"]


def test_what_could_be_either_is_refused_until_it_is_said(caller: Caller, customer: str) -> None:
    error = refused(send, caller, customer, "05/10/2026 10:00")
    assert "'%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'; say which" in error.details()
    assert send(caller, customer, "05/10/2026 10:00", time_format="%m/%d/%Y %H:%M").accepted == 1
    assert starts(caller, customer) == ["2026-05-10T10:00:00Z"]


def test_first_rows_whose_day_and_month_are_the_same_number_tell_nothing_of_those_behind(
    caller: Caller, customer: str
) -> None:
    # A month's file that begins on 10 October: only rows far behind would say that the month comes first.
    error = refused(send, caller, customer, *["10/10/2026 10:00"] * 200, "10/13/2026 10:00")
    assert "'%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'; say which" in error.details()
    assert starts(caller, customer) == []


def test_an_unknown_format_is_refused(caller: Caller, customer: str) -> None:
    assert refused(send, caller, customer, "5th of October").details().startswith("time_format: no known")


def test_times_are_of_the_zone_that_is_given(caller: Caller, customer: str) -> None:
    # India is 5:30 ahead of UTC; a time with an offset is what it says.
    times = ["2026-10-05 10:00:00", "2026-10-05 10:00:00+00:00"]
    assert send(caller, customer, *times, time_zone="Asia/Kolkata").accepted == 2
    assert starts(caller, customer) == ["2026-10-05T04:30:00Z", "2026-10-05T10:00:00Z"]


def test_local_times_that_occur_twice_or_never(caller: Caller, customer: str) -> None:
    # Berlin, 2025: clocks go from 03:00 back to 02:00 on 26 October (01:00 UTC), so 02:30 is first at 00:30 UTC.
    # On 30 March they go from 02:00 to 03:00: there is no 02:30.
    # (Accepted from: 400 days back from now, and the clock of tests is the real one.)
    times = ["2026-10-25 02:30:00", "2026-03-29 02:30:00"]
    answer = send(caller, customer, *times, time_zone="Europe/Berlin")
    assert counts(answer) == (1, 0, 0, 0, 1)
    assert (answer.problems[0].line, answer.problems[0].reason) == (3, "BAD_TIME")
    assert "does not occur in Europe/Berlin" in answer.problems[0].message
    assert starts(caller, customer) == ["2026-10-25T00:30:00Z"]


def test_an_end_gives_the_duration(caller: Caller, customer: str) -> None:
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
        (call.duration_seconds.value, call.billable_seconds.value, call.disposition) for call in caller.calls(customer)
    ]
    assert found == [("60", "50", pb.DISPOSITION_ANSWERED), ("30", "0", pb.DISPOSITION_NO_ANSWER)]
