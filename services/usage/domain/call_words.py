"""The words that files of calls have for call types and dispositions."""

from collections.abc import Mapping
from typing import Final, TypeVar

from services.usage.domain.call import CallType, Disposition
from services.usage.domain.call_columns import word
from services.usage.domain.event import Rejected

T = TypeVar("T")

CALL_TYPES: Final = {
    **dict.fromkeys(("inbound", "in", "incoming"), CallType.INBOUND),
    **dict.fromkeys(("outbound", "out", "outgoing"), CallType.OUTBOUND),
    **dict.fromkeys(("internal", "on_net", "extension"), CallType.INTERNAL),
    **dict.fromkeys(("toll_free", "tollfree", "freephone", "free"), CallType.TOLL_FREE),
}
DISPOSITIONS: Final = {
    **dict.fromkeys(
        ("answered", "answer", "completed", "ok", "success", "normal_clearing", "normal", "connected", "16", "200"),
        Disposition.ANSWERED,
    ),
    **dict.fromkeys(
        ("no_answer", "noanswer", "missed", "unanswered", "no_user_response", "timeout", "18", "19", "480"),
        Disposition.NO_ANSWER,
    ),
    **dict.fromkeys(("busy", "user_busy", "rejected", "declined", "call_rejected", "17", "486"), Disposition.BUSY),
    **dict.fromkeys(
        ("failed", "failure", "error", "chanunavail", "invalid", "unallocated_number", "1", "404"), Disposition.FAILED
    ),
    **dict.fromkeys(("congestion", "34", "42", "503"), Disposition.CONGESTION),
    **dict.fromkeys(("cancelled", "canceled", "cancel", "originator_cancel", "487"), Disposition.CANCELLED),
}


def call_type(text: str) -> CallType | None:
    """Return what a cell says, None if it is empty.

    Raises:
        Rejected: none of the words.
    """
    return _named(text, CALL_TYPES, "call_type", "BAD_CALL_TYPE")


def disposition(text: str) -> Disposition | None:
    """Return what a cell says, None if it is empty.

    Raises:
        Rejected: none of the words.
    """
    return _named(text, DISPOSITIONS, "disposition", "BAD_DISPOSITION")


def _named(text: str, known: Mapping[str, T], field: str, reason: str) -> T | None:
    if not text:
        return None
    found = known.get(word(text))
    if found is None:
        raise Rejected(reason, field, f"{text[:64]!r} is none of {', '.join(known)}")
    return found
