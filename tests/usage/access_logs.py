"""Three web sites' access logs (examples/access-logs), a customer each, and what their meters must say."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from real_data import EXAMPLES, Span, ingest, totals, windows
from usage_harness import Client, event, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb

_TYPE = "web.request"
METERS = (
    meters_pb.Meter(id="requests", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_COUNT),
    meters_pb.Meter(id="bytes", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_SUM, quantity="bytes"),
    meters_pb.Meter(id="clients", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_UNIQUE, attribute="client"),
    meters_pb.Meter(id="by-status", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_COUNT, group_by=["status"]),
    meters_pb.Meter(
        id="errors",
        event_type=_TYPE,
        aggregation=meters_pb.AGGREGATION_COUNT,
        filters=[
            meters_pb.MeterFilter(
                attribute="status", operator=meters_pb.FILTER_OPERATOR_GREATER_OR_EQUAL, values=["400"]
            )
        ],
    ),
)


@dataclass(frozen=True)
class Log:
    """A log's file, the site's zone, a month that holds it, and what its lines add up to."""

    file: str
    zone: str
    month: Span
    metered: dict[str, int]
    statuses: dict[str, int]


# The lines, counted with neither the service nor this module (`clients`: cut -d' ' -f1 | sort -u | wc -l):
#   zgrep -aoE '" [0-9]{3} ([0-9]+|-)( |$)' FILE |
#     awk '{n++; b+=$3; s[$2]++; if ($2>=400) e++} END {printf "%d %.0f %d\n", n, b, e; for (k in s) print k, s[k]}'
LOGS = {
    "semicomplete": Log(
        "http-apache-elastic.log.gz",
        "UTC",
        (utc(2015, 5, 1), utc(2015, 6, 1)),
        # 220 errors are 213 + 3 + 2 + 2.
        {"requests": 10_000, "bytes": 2_747_282_740, "clients": 1_753, "errors": 220},
        {"200": 9_126, "304": 445, "404": 213, "301": 164, "206": 45, "500": 3, "403": 2, "416": 2},
    ),
    "secrepo-2021": Log(
        "http-secrepo-2021-10-22.log.gz",
        "America/Los_Angeles",
        (utc(2021, 10, 1), utc(2021, 11, 1)),
        # 89 errors are 76 + 12 + 1.
        {"requests": 644, "bytes": 658_014_895, "clients": 160, "errors": 89},
        {"200": 489, "404": 76, "301": 59, "418": 12, "206": 4, "304": 3, "408": 1},
    ),
    "secrepo-2022": Log(
        "http-secrepo-2022-12-22.log.gz",
        "America/Los_Angeles",
        (utc(2022, 12, 1), utc(2023, 1, 1)),
        # 400 errors are 389 + 11.
        {"requests": 1_262, "bytes": 75_257_489, "clients": 585, "errors": 400},
        {"200": 446, "301": 407, "404": 389, "429": 11, "304": 5, "206": 4},
    ),
}
# Client, time and zone, status, size: all that is counted here. The request may hold escaped quotes.
_LINE = re.compile(r'^(\S+) \S+ \S+ \[([^ \]]+) ([+-]\d{4})\] "(?:[^"\\]|\\.)*" (\d{3}) (\d+|-)')


def _lines(file: str) -> Iterator[tuple[datetime, str, str, int]]:
    """A log's requests: when, client, status, bytes."""
    with gzip.open(EXAMPLES / "access-logs" / file, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _LINE.match(line)
            assert found is not None, line
            client, time, zone, status, size = found.groups()
            instant = datetime.strptime(f"{time} {zone}", "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
            yield instant, client, status, 0 if size == "-" else int(size)


class Logs:
    """The requests of three sites."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sites = {name: client.put_customer(time_zone=log.zone) for name, log in LOGS.items()}
        for meter in METERS:
            client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))

    def send(self) -> None:
        """Send all, log by log."""
        for name, log in LOGS.items():
            assert ingest(self._client, self._events(name, log.file)) == log.metered["requests"]

    def _events(self, name: str, file: str) -> Iterator[events_pb.Event]:
        for n, (time, address, status, size) in enumerate(_lines(file)):
            yield event(
                self._sites[name],
                # Some lines repeat an earlier one exactly: only their place tells them apart.
                id=f"{file}:{n}",
                type=_TYPE,
                time=time,
                quantities={"bytes": str(size)},
                attributes={"client": address, "status": status},
            )

    def compare(self) -> None:
        """Compare each site's meters with its lines, by day, by status in its seal, and as a whole."""
        for name, log in LOGS.items():
            site = self._sites[name]
            said = totals(self._client, [(site, meter) for meter in log.metered], log.month)
            assert {meter: said[site, meter] for meter in log.metered} == log.metered
            # Local days of the site: the logs of secrepo.com run from 2 o'clock to 2 o'clock there.
            days: Counter[datetime] = Counter()
            for time, _, _, size in _lines(log.file):
                local = time.astimezone(ZoneInfo(log.zone)).replace(hour=0, minute=0, second=0, microsecond=0)
                days[local.astimezone(UTC)] += size
            assert windows(self._client, site, "bytes", log.month, usage_pb.WINDOW_DAY) == days
            sealed = [each for each in self._client.seal(site, *log.month).totals if each.meter == "by-status"]
            assert {each.group["status"]: Decimal(each.value.value) for each in sealed} == log.statuses
