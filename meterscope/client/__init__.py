"""The client SDK: sends usage events in batches, retries with the same ids, and never loses one silently."""

from meterscope.client.client import Client
from meterscope.client.errors import ClientClosed, MeterscopeError, QueueFull, Undelivered
from meterscope.client.event import Event, Outcome, Quantity, Result

__all__ = [
    "Client",
    "ClientClosed",
    "Event",
    "MeterscopeError",
    "Outcome",
    "Quantity",
    "QueueFull",
    "Result",
    "Undelivered",
]
