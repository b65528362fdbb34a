"""The client SDK: sends usage events in batches, retries with the same ids, and never loses one silently."""

from meterscope.client.aio import AsyncClient
from meterscope.client.client import Client
from meterscope.client.errors import (
    CallFailed,
    ClientClosed,
    MeterscopeError,
    QueueFull,
    SpoolBusy,
    SpoolDamaged,
    SpoolFull,
    Undelivered,
)
from meterscope.client.event import Event, Outcome, Quantity, Result
from meterscope.client.limits import Check, LimitCheck, LimitFault, Reservation

__all__ = [
    "AsyncClient",
    "CallFailed",
    "Check",
    "Client",
    "ClientClosed",
    "Event",
    "LimitCheck",
    "LimitFault",
    "MeterscopeError",
    "Outcome",
    "Quantity",
    "QueueFull",
    "Reservation",
    "Result",
    "SpoolBusy",
    "SpoolDamaged",
    "SpoolFull",
    "Undelivered",
]
