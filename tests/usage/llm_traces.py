"""Two LLM services' requests (examples/llm-traces), given away among tenants, and what their meters must say."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from real_data import EXAMPLES, ingest, totals, windows
from usage_harness import Client, event, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb

TENANTS = 7
FILES = {"code": "azure-llm-code.csv.gz", "conv": "azure-llm-conv.csv.gz"}
DAY = (utc(2023, 11, 16), utc(2023, 11, 17))
# The publisher's rows, counted with neither the service nor this module:
#   zcat FILE | awk -F, 'NR>1 {n++; c+=$2; g+=$3; if ($2>m) m=$2; if (l=="" || $2<l) l=$2} END {print n, c, g, m, l}'
#   code:  8819 18059974  245896  7437 3
#   conv: 19366 22361870 4088665 14050 2
ROWS = {"code": 8_819, "conv": 19_366}
ADDED_UP = {
    "completions": 8_819 + 19_366,
    "context": 18_059_974 + 22_361_870,
    "generated": 245_896 + 4_088_665,
    "code-context": 18_059_974,
}
LONGEST, SHORTEST = 14_050, 2

_TYPE = "llm.completion"
METERS = (
    meters_pb.Meter(id="completions", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_COUNT),
    meters_pb.Meter(id="context", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_SUM, quantity="context"),
    meters_pb.Meter(id="generated", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_SUM, quantity="generated"),
    meters_pb.Meter(id="longest", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_MAX, quantity="context"),
    meters_pb.Meter(id="shortest", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_MIN, quantity="context"),
    meters_pb.Meter(id="mean", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_AVG, quantity="generated"),
    meters_pb.Meter(id="last", event_type=_TYPE, aggregation=meters_pb.AGGREGATION_LATEST, quantity="generated"),
    meters_pb.Meter(
        id="code-context",
        event_type=_TYPE,
        aggregation=meters_pb.AGGREGATION_SUM,
        quantity="context",
        filters=[
            meters_pb.MeterFilter(attribute="service", operator=meters_pb.FILTER_OPERATOR_EQUALS, values=["code"])
        ],
    ),
)


@dataclass(frozen=True)
class _Request:
    """A row: its place in its file, from 0, is its id and says whose it is."""

    id: str
    tenant: int
    service: str
    time: datetime
    context: int
    generated: int


def _requests() -> Iterator[_Request]:
    for service, file in FILES.items():
        with gzip.open(EXAMPLES / "llm-traces" / file, "rt", encoding="ascii", newline="") as rows:
            for n, row in enumerate(csv.DictReader(rows)):
                # The seventh digit of the second is cut off: times are kept to the microsecond.
                time = datetime.strptime(row["TIMESTAMP"][:-1], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
                context, generated = int(row["ContextTokens"]), int(row["GeneratedTokens"])
                yield _Request(f"{file}:{n}", n % TENANTS, service, time, context, generated)


class Traces:
    """The requests of seven tenants."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tenants = [client.put_customer() for _ in range(TENANTS)]
        self._requests = list(_requests())
        for meter in METERS:
            client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))

    def send(self) -> None:
        """Send all, service by service."""
        for service, count in ROWS.items():
            sent = ingest(self._client, (self._event(each) for each in self._requests if each.service == service))
            assert sent == count

    def _event(self, each: _Request) -> events_pb.Event:
        return event(
            self._tenants[each.tenant],
            id=each.id,
            type=_TYPE,
            time=each.time,
            quantities={"context": str(each.context), "generated": str(each.generated)},
            attributes={"service": each.service},
        )

    def compare(self) -> None:
        """Compare each tenant's meters with its rows, and all tenants' together with the publisher's files."""
        expected: dict[tuple[str, str], Decimal] = {}
        for number, tenant in enumerate(self._tenants):
            mine = [each for each in self._requests if each.tenant == number]
            expected |= {(tenant, meter): value for meter, value in _metered(mine).items()}
            # By the quarter of an hour: what began in it.
            by_quarter: Counter[datetime] = Counter()
            for each in mine:
                by_quarter[each.time.replace(minute=each.time.minute // 15 * 15, second=0, microsecond=0)] += (
                    each.context
                )
            assert windows(self._client, tenant, "context", DAY, usage_pb.WINDOW_QUARTER_HOUR) == by_quarter
        said = totals(self._client, list(expected), DAY)
        assert said == expected
        assert {meter: sum(said[tenant, meter] for tenant in self._tenants) for meter in ADDED_UP} == ADDED_UP
        assert max(said[tenant, "longest"] for tenant in self._tenants) == LONGEST
        assert min(said[tenant, "shortest"] for tenant in self._tenants) == SHORTEST


def _metered(requests: list[_Request]) -> dict[str, Decimal]:
    contexts, generated = [each.context for each in requests], [each.generated for each in requests]
    # Of the latest time; of several the last id by its bytes.
    last = max(requests, key=lambda each: (each.time, each.id.encode()))
    return {
        "completions": Decimal(len(requests)),
        "context": Decimal(sum(contexts)),
        "generated": Decimal(sum(generated)),
        "longest": Decimal(max(contexts)),
        "shortest": Decimal(min(contexts)),
        # Rounded as the contract says: 12 decimals, half up.
        "mean": (Decimal(sum(generated)) / len(generated)).quantize(Decimal("1e-12"), ROUND_HALF_UP),
        "last": Decimal(last.generated),
        "code-context": Decimal(sum(each.context for each in requests if each.service == "code")),
    }
