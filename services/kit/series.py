"""Counters and histograms that reach their series at once.

The SDK finds the series of each measurement anew, for each reader: it copies the labels twice, checks them, hashes them
by type, and asks whether an exemplar is wanted. Here the first measurement under some labels goes through the SDK, which
makes the series; those that follow go to its aggregation. Where that is not to be found, and where a measurement may
become an exemplar, they go the way of the first.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.util.types import Attributes

from services.kit.exemplars import is_kept

# The SDK shows nobody its series.
# ruff: noqa: SLF001


def counter(instrument: metrics.Counter) -> metrics.Counter:
    """Return a counter that counts in the given one's series; that itself, where no provider is set."""
    return _Counter(instrument, instrument.add) if isinstance(instrument, SdkCounter) else instrument


def histogram(instrument: metrics.Histogram) -> metrics.Histogram:
    """Return a histogram that records in the given one's series; that itself, where no provider is set."""
    return _Histogram(instrument, instrument.record) if isinstance(instrument, SdkHistogram) else instrument


class _Amount:
    """What an aggregation reads of a measurement that is no exemplar."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


class _Series:
    """The aggregations of one instrument, one for each reader, by labels."""

    def __init__(self, instrument: Any, through_sdk: Callable[[float, Attributes, Context | None], None]) -> None:
        self._instrument = instrument
        self._through_sdk = through_sdk
        self._consumer = instrument._measurement_consumer
        self._readers: Any = None
        self._found: dict[tuple[tuple[str, Any], ...], list[Any]] = {}

    def measure(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:
        """Add to the series of these labels."""
        labels = attributes or {}
        if context is not None or not self._take(amount, labels):
            self._through_sdk(amount, labels, context)
            self._find(labels)

    def _take(self, amount: float, labels: Mapping[str, Any]) -> bool:
        """Add a measurement to its series; say whether that could be done."""
        try:
            found = self._found.get(tuple(labels.items()))
        except TypeError:
            # Labels that cannot be keys, such as lists.
            return False
        # The SDK has words for an amount that is none.
        if found is None or not 0 <= amount < math.inf or is_kept():
            return False
        if self._consumer._reader_storages is not self._readers:
            # A reader came or went: its storage is found with the next ones.
            self._found = {}
            return False
        measured = _Amount(amount)
        for aggregation in found:
            aggregation.aggregate(measured, False)
        return True

    def _find(self, labels: Mapping[str, Any]) -> None:
        """Remember where the SDK keeps the series of these labels."""
        if not all(isinstance(value, str) for value in labels.values()):
            # 1 and True are one key here, and two series.
            return
        key = _hash_attributes(dict(labels))
        found = []
        readers = self._consumer._reader_storages
        for storage in readers.values():
            # None yet where the SDK refused the amount.
            matches = storage._instrument_view_instrument_matches.get(self._instrument)
            if matches is None:
                return
            for match in matches:
                aggregation = match._attributes_aggregation.get(key)
                # Beyond the limit of series there is none; and a reader of differences makes new ones at each export.
                if aggregation is None or match._reset_on_collect:
                    return
                found.append(aggregation)
        if self._readers is not readers:
            self._found = {}
            self._readers = readers
        self._found[tuple(labels.items())] = found


class _Counter(_Series, metrics.Counter):
    add = _Series.measure


class _Histogram(_Series, metrics.Histogram):
    record = _Series.measure
