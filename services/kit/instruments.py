"""Declarations of instruments: what is measured, in which unit, under which labels; and what Prometheus makes of the name.

Each instrument of each process is declared once, as a constant of a `metrics.py`, and made from its declaration alone:
the catalogue (docs/metrics.md), the tests of rules and of dashboards are read off the same constants.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import ObservableGauge as SdkGauge

from services.kit import series

Read = Callable[[], Iterable[Observation]]

CUSTOMER: Final = "customer_id"
TENANT: Final = "tenant_id"
# Series of an instrument, for readers of metrics. What comes beyond it is counted together, its labels lost; the SDK's
# own 2,000 would be less than METRICS_MAX_CUSTOMERS may allow with a few meters.
CARDINALITY_LIMITS: Final[dict[type, int]] = {SdkCounter: 100_000, SdkGauge: 100_000}

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_UNITS: Final = {"s": "seconds", "By": "bytes", "Cel": "celsius", "%": "percent"}


@dataclass(frozen=True)
class Label:
    """A label.

    Attributes:
        name: OpenTelemetry's, with dots.
        values: all that there are, where they are a closed set; none where they are not.
        optional: whether points may lack it.
    """

    name: str
    values: tuple[str, ...] = ()
    optional: bool = False

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus."""
        return self.name.replace(".", "_")


@dataclass(frozen=True)
class Declaration:
    """What all instruments have.

    Attributes:
        name: OpenTelemetry's, with dots.
        description: one sentence.
        unit: UCUM; empty where Prometheus must not append it to the name.
        labels: every label that a point has.
    """

    kind: ClassVar[str]

    name: str
    description: str
    unit: str = ""
    labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what Prometheus would show under another name, or what no one could read.

        Raises:
            ValueError: the name, the description or the unit is wrong, or a label comes twice.
        """
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of an instrument; use small letters, digits, _ and dots")
        if not self.description:
            raise ValueError(f"{self.name} has no description")
        if self.unit not in _UNITS and self.unit not in ("", "1") and not self.unit.startswith("{"):
            raise ValueError(f"{self.name} has a unit {self.unit!r} whose suffix is not known; add it here")
        if len({label.name for label in self.labels}) < len(self.labels):
            raise ValueError(f"{self.name} has a label twice")

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, by the standard translation; a histogram's without `_bucket`, `_sum`, `_count`."""
        tokens = re.split(r"[._]", self.name)
        suffix = _UNITS.get(self.unit)
        if suffix is not None and suffix not in tokens:
            tokens.append(suffix)
        if self._ending:
            tokens = [*(token for token in tokens if token != self._ending), self._ending]
        return "_".join(tokens)

    @property
    def prometheus_series(self) -> tuple[str, ...]:
        """The names of the series in Prometheus."""
        return (self.prometheus_name,)

    @property
    def prometheus_labels(self) -> tuple[str, ...]:
        """The names of the labels in Prometheus, `tenant_id` beside `customer_id`; a histogram's without `le`."""
        names = (label.prometheus_name for label in self.labels)
        return tuple(itertools.chain.from_iterable((name, TENANT) if name == CUSTOMER else (name,) for name in names))

    @property
    def _ending(self) -> str:
        """What Prometheus puts last."""
        return ""


@dataclass(frozen=True)
class Counter(Declaration):
    """Something that only grows."""

    kind = "counter"

    def build(self, meter: Meter, known: Mapping[str, str] | None = None) -> metrics.Counter:
        """Make the instrument, started at 0 where every label is closed or in `known`; see `start`."""
        counter = series.counter(meter.create_counter(self.name, unit=self.unit, description=self.description))
        self.start(counter, known or {})
        return counter

    def start(self, counter: metrics.Counter, known: Mapping[str, str]) -> None:
        """Start the series at 0: one that began with its first failure would hide that failure from `rate`.

        Args:
            counter: made by `build`.
            known: values of labels whose set is open. While one is missing nothing is started.
        """
        for labels in self.zeros(known):
            counter.add(0, labels)

    def zeros(self, known: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the labels of the series that `start` starts."""
        values = [(known[label.name],) if label.name in known else label.values for label in self.labels]
        names = [label.name for label in self.labels]
        return [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]

    def observe(self, meter: Meter, read: Read) -> None:
        """Make the instrument of a count that is kept elsewhere; `read` is called at each export."""
        meter.create_observable_counter(
            self.name, callbacks=[_callback(read)], unit=self.unit, description=self.description
        )

    @property
    def _ending(self) -> str:
        return "total"


@dataclass(frozen=True)
class Gauge(Declaration):
    """Something that goes up and down, read at each export."""

    kind = "gauge"

    def observe(self, meter: Meter, read: Read) -> None:
        """Make the instrument. `read` is called at each export; what it leaves out is not reported."""
        meter.create_observable_gauge(
            self.name, callbacks=[_callback(read)], unit=self.unit, description=self.description
        )

    @property
    def _ending(self) -> str:
        return "ratio" if self.unit == "1" else ""


@dataclass(frozen=True)
class Histogram(Declaration):
    """How long or how much, many times.

    Attributes:
        boundaries: upper bounds of the buckets, in the unit.
        alerts: what rules and objectives compare with; each is a boundary, so that the share below it is exact.
    """

    kind = "histogram"

    boundaries: tuple[float, ...] = ()
    alerts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse buckets that answer no question.

        Raises:
            ValueError: see `Declaration`; or the boundaries do not rise, lack a bound of an alert, or are multiplied by
                customers.
        """
        super().__post_init__()
        if not self.boundaries or any(low >= high for low, high in pairwise(self.boundaries)):
            raise ValueError(f"the boundaries of {self.name} do not rise")
        if missing := set(self.alerts) - set(self.boundaries):
            raise ValueError(f"{self.name} has no boundary at {sorted(missing)}, which an alert compares with")
        if any(label.name == CUSTOMER for label in self.labels):
            raise ValueError(f"{self.name} is a histogram by customer: each of them would be a dozen series")

    @property
    def prometheus_series(self) -> tuple[str, ...]:
        """The names of the series in Prometheus."""
        return tuple(f"{self.prometheus_name}_{part}" for part in ("bucket", "sum", "count"))

    def build(self, meter: Meter) -> metrics.Histogram:
        """Make the instrument."""
        return series.histogram(
            meter.create_histogram(
                self.name,
                unit=self.unit,
                description=self.description,
                explicit_bucket_boundaries_advisory=self.boundaries,
            )
        )


def _callback(read: Read) -> metrics.CallbackT:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return read()

    return observe
