"""Meterscope for programs: `from meterscope import Client`. The generated stubs lie beside it, by package of the contract."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meterscope.client import (
        AsyncClient,
        CallFailed,
        Check,
        Client,
        ClientClosed,
        Event,
        LimitCheck,
        LimitFault,
        MeterscopeError,
        Outcome,
        Quantity,
        QueueFull,
        Reservation,
        Result,
        SpoolBusy,
        SpoolDamaged,
        SpoolFull,
        Undelivered,
    )

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


def __getattr__(name: str) -> Any:
    # Services import the stubs from here and the command line starts here: neither should load the client for it.
    if name in __all__:
        from meterscope import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
