"""Meters."""

from typing import Final

from meterscope.usage.v1 import meter_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.usage.convert.fields import timestamp
from services.usage.domain.meter import Aggregation, Meter

_AGGREGATIONS: Final = {
    pb.AGGREGATION_COUNT: Aggregation.COUNT,
    pb.AGGREGATION_SUM: Aggregation.SUM,
}
_ENCODED: Final = {aggregation: number for number, aggregation in _AGGREGATIONS.items()}


def decode(message: pb.Meter) -> Meter:
    """Decode a meter to be created.

    Raises:
        InvalidArgument: names the field.
    """
    aggregation = _AGGREGATIONS.get(message.aggregation)
    if aggregation is None:
        raise InvalidArgument.at("meter.aggregation", f"{message.aggregation} is none; use COUNT or SUM")
    return Meter(
        id=message.id,
        event_type=message.event_type,
        aggregation=aggregation,
        quantity=message.quantity,
        unit=message.unit,
    )


def encode(meter: Meter) -> pb.Meter:
    """Encode a meter."""
    return pb.Meter(
        id=meter.id,
        event_type=meter.event_type,
        aggregation=_ENCODED[meter.aggregation],
        quantity=meter.quantity,
        unit=meter.unit,
        create_time=None if meter.create_time is None else timestamp(meter.create_time),
    )
