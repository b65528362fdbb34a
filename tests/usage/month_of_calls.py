"""A month of calls from a seeded generator (examples/calls; nobody made them), and what their meters must say."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import grpc
from calling import ANSWERED_OUTBOUND, Caller, by_country, counts
from real_data import totals, windows
from usage_harness import Client, utc

from examples.calls.made_up_calls import HEADER, calls, write
from meterscope.callimport import create_meters
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb

SEED, COUNT, MALFORMED, CUSTOMERS = 4, 100_000, 0.01, 20
MONTH = (utc(2026, 10, 1), utc(2026, 11, 1))
# The rows, counted with neither the service nor this module:
#   python examples/calls/made_up_calls.py --count 100000 --seed 4 --malformed 0.01 | tr -d '\r' | awk -F, '
#     NR>1 && NF==10 && $4!="+44 12" && $6!="soon" && $7!="-1" && $9!="PERHAPS" {
#       n++; s+=$8; if ($7>m) m=$7; if ($9=="ANSWERED" && ($5=="outbound" || $5=="toll_free")) a++
#       d[$4]=1; c[$4 ~ /^\+/ ? substr($4, 1, 3) : "inside"]++
#     } END {print n, s, m, a, length(d); for (k in c) print k, c[k]}'
#   99028 12788582 7227 50544 64608; +44 18313; +91 46291; inside 34424
GOOD, SECONDS, LONGEST, ANSWERED, CALLED = 99_028, 12_788_582, 7_227, 50_544, 64_608
BY_COUNTRY = {"GB": 18_313, "IN": 46_291, "": 34_424}
_COUNTRIES = {"+44": "GB", "+91": "IN"}
_FILE_ROWS = 10_000
_ZONE = "Asia/Kolkata"

# Besides `calls` and `call_seconds`, which the import's command makes.
METERS = (
    meters_pb.Meter(
        id="longest_call",
        event_type="call.record",
        aggregation=meters_pb.AGGREGATION_MAX,
        quantity="duration_seconds",
    ),
    meters_pb.Meter(
        id="called", event_type="call.record", aggregation=meters_pb.AGGREGATION_UNIQUE, attribute="callee"
    ),
    ANSWERED_OUTBOUND,
)


class CallMonth:
    """The calls of twenty customers."""

    def __init__(self, client: Client, channel: grpc.Channel) -> None:
        self._client = client
        self._caller = Caller(channel)
        self._customers = {key: client.put_customer(keys=[key]) for key in _keys()}
        file = io.StringIO(newline="")
        write(calls(SEED, COUNT, malformed=MALFORMED, customers=CUSTOMERS), file)
        self._lines = file.getvalue().splitlines(keepends=True)
        create_meters(channel)
        for meter in METERS:
            client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))

    def send(self) -> None:
        """Import ten files, and one of them again."""
        header, *lines = self._lines
        files = ["".join([header, *lines[first : first + _FILE_ROWS]]) for first in range(0, COUNT, _FILE_ROWS)]
        answers = [counts(self._caller.send(file)) for file in files]
        accepted, rejected = sum(answer[0] for answer in answers), sum(answer[4] for answer in answers)
        assert (accepted, rejected) == (GOOD, COUNT - GOOD)
        assert answers == [(accepted, 0, 0, 0, _FILE_ROWS - accepted) for accepted, *_ in answers]
        assert counts(self._caller.send(files[3])) == (0, answers[3][0], 0, 0, answers[3][4])

    def compare(self) -> None:
        """Compare each customer's meters with its rows, and all customers' together with the whole file."""
        rows = [row for row in csv.DictReader(self._lines) if _is_good(row)]
        mine = {key: [row for row in rows if row["account"] == key] for key in self._customers}
        expected = {
            (customer, meter): Decimal(value)
            for key, customer in self._customers.items()
            for meter, value in _metered(mine[key]).items()
        }
        said = totals(self._client, list(expected), MONTH)
        assert said == expected
        whole = {"calls": GOOD, "call_seconds": SECONDS, "answered_outbound": ANSWERED}
        assert {meter: sum(said[each, meter] for each in self._customers.values()) for meter in whole} == whole
        assert max(said[each, "longest_call"] for each in self._customers.values()) == LONGEST
        # A number that two customers called is one number of the file, and one of each customer's.
        assert len({row["callee"] for row in rows}) == CALLED

        called: Counter[str] = Counter()
        for key, customer in self._customers.items():
            found = by_country(self._client, customer, "calls", *MONTH)
            assert found == Counter(map(_country, mine[key]))
            called.update(found)
        assert called == BY_COUNTRY
        key, customer = next(iter(self._customers.items()))
        # A call belongs to the day on which it began, whose midnight is 18:30 UTC in India.
        days: Counter[datetime] = Counter()
        for row in mine[key]:
            local = _start(row).astimezone(ZoneInfo(_ZONE)).replace(hour=0, minute=0, second=0)
            days[max(local.astimezone(UTC), MONTH[0])] += int(row["billsec"])
        daily = windows(self._client, customer, "call_seconds", MONTH, usage_pb.WINDOW_DAY, time_zone=_ZONE)
        assert daily == days


def _keys() -> Iterator[str]:
    return (f"made-up-{number}" for number in range(1, CUSTOMERS + 1))


def _is_good(row: dict[str, str]) -> bool:
    """A row that has all columns, none of them spoilt; the generator's own word for it is not asked."""
    return row[HEADER[-1]] is not None and not (
        row["callee"] == "+44 12"
        or row["start_time"] == "soon"
        or row["duration"] == "-1"
        or row["disposition"] == "PERHAPS"
    )


def _start(row: dict[str, str]) -> datetime:
    return datetime.strptime(row["start_time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def _country(row: dict[str, str]) -> str:
    return _COUNTRIES.get(row["callee"][:3], "")


def _metered(rows: Sequence[dict[str, str]]) -> dict[str, int]:
    outward = [row for row in rows if row["call_type"] in {"outbound", "toll_free"}]
    return {
        "calls": len(rows),
        "call_seconds": sum(int(row["billsec"]) for row in rows),
        "longest_call": max(int(row["duration"]) for row in rows),
        "called": len({row["callee"] for row in rows}),
        "answered_outbound": sum(row["disposition"] == "ANSWERED" for row in outward),
    }
