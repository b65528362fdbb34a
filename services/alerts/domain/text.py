"""Texts that callers send: how long they may be and what they may hold."""

from collections.abc import Mapping

from services.kit.errors import InvalidArgument


def check_text(field: str, value: str, *, least: int = 0, most: int) -> None:
    """Check a text's length in bytes of UTF-8, and that it holds no NUL, which PostgreSQL cannot store.

    Raises:
        InvalidArgument: at `field`.
    """
    size = len(value.encode())
    if size < least:
        raise InvalidArgument.at(field, f"is empty; send {least} to {most:,} bytes", reason="REQUIRED")
    if size > most:
        raise InvalidArgument.at(field, f"has {size:,} bytes; at most {most:,} are kept", reason="TOO_LONG")
    if "\0" in value:
        raise InvalidArgument.at(field, "holds a NUL character; leave it out", reason="NUL_CHARACTER")


def check_labels(field: str, labels: Mapping[str, str], *, most: int) -> None:
    """Check a map of names to values: at most `most` entries, names of 1 to 128 bytes, values of at most 1,024.

    Raises:
        InvalidArgument: at `field`, or at `field[name]`.
    """
    if len(labels) > most:
        raise InvalidArgument.at(field, f"has {len(labels)} entries; at most {most} are kept", reason="TOO_MANY")
    for name, value in labels.items():
        check_text(f"{field} name {name[:32]!r}", name, least=1, most=128)
        check_text(f"{field}[{name[:32]!r}]", value, most=1_024)
