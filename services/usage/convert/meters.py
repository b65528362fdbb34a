"""Meters."""

from typing import Final

from meterscope.usage.v1 import meter_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.usage.convert.fields import instant, timestamp
from services.usage.domain.meter import Aggregation, Filter, Meter, Operator
from services.usage.domain.recount import Recount

_AGGREGATIONS: Final = {pb.Aggregation.Value(f"AGGREGATION_{each}"): each for each in Aggregation}
_ENCODED: Final = {aggregation: number for number, aggregation in _AGGREGATIONS.items()}
_OPERATORS: Final = {pb.FilterOperator.Value(f"FILTER_OPERATOR_{each}"): each for each in Operator}
_ENCODED_OPERATORS: Final = {operator: number for number, operator in _OPERATORS.items()}


def decode(message: pb.Meter) -> Meter:
    """Decode a meter to be created.

    Raises:
        InvalidArgument: names the field.
    """
    aggregation = _AGGREGATIONS.get(message.aggregation)
    if aggregation is None:
        raise InvalidArgument.at("meter.aggregation", f"{message.aggregation} is none; use {', '.join(Aggregation)}")
    count_from = None
    if message.HasField("count_from"):
        count_from = instant(message.count_from, "meter.count_from")
    return Meter(
        id=message.id,
        event_type=message.event_type,
        aggregation=aggregation,
        quantity=message.quantity,
        unit=message.unit,
        attribute=message.attribute,
        filters=tuple(_filter(each, f"meter.filters[{index}]") for index, each in enumerate(message.filters)),
        group_by=tuple(message.group_by),
        description=message.description,
        count_from=count_from,
    )


def encode(meter: Meter, recount: Recount | None) -> pb.Meter:
    """Encode a meter and its last recount."""
    return pb.Meter(
        id=meter.id,
        event_type=meter.event_type,
        aggregation=_ENCODED[meter.aggregation],
        quantity=meter.quantity,
        unit=meter.unit,
        create_time=None if meter.create_time is None else timestamp(meter.create_time),
        attribute=meter.attribute,
        filters=[
            pb.MeterFilter(attribute=each.attribute, operator=_ENCODED_OPERATORS[each.operator], values=each.values)
            for each in meter.filters
        ],
        group_by=meter.group_by,
        description=meter.description,
        count_from=None if meter.count_from is None else timestamp(meter.count_from),
        archive_time=None if meter.archive_time is None else timestamp(meter.archive_time),
        recount=None if recount is None else _recount(recount),
    )


def _recount(recount: Recount) -> pb.MeterRecount:
    return pb.MeterRecount(
        state=pb.MeterRecount.State.Value(f"STATE_{recount.state}"),
        start_time=timestamp(recount.start),
        customers_total=recount.customers_total,
        customers_done=recount.customers_done,
        events_done=recount.events_done,
        create_time=timestamp(recount.create_time),
        end_time=None if recount.end_time is None else timestamp(recount.end_time),
    )


def _filter(message: pb.MeterFilter, at: str) -> Filter:
    operator = _OPERATORS.get(message.operator)
    if operator is None:
        raise InvalidArgument.at(f"{at}.operator", f"{message.operator} is none; use {', '.join(Operator)}")
    return Filter(message.attribute, operator, tuple(message.values))
