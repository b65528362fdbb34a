"""JSON text to Python values, stricter than the standard library: UTF-8, no duplicate keys, no NaN."""

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

from services.kit.errors import InvalidArgument

_SHOWN: Final = 64


def shown(value: object) -> str:
    """Return a caller's value for an error message: short, and valid text whatever it was."""
    text = json.dumps(value) if isinstance(value, str | int | float | bool | None) else str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def parse(body: bytes, *, number: Callable[[str], Any] | None = None) -> Any:
    """Parse a body.

    Args:
        body: JSON in UTF-8.
        number: makes the value of a number from the text that was sent; int and float do when None.

    Raises:
        InvalidArgument: not JSON, not UTF-8, a key given twice, NaN or Infinity, nested too deep.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}; send JSON in UTF-8",
            reason="INVALID_UTF8",
        ) from None
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=number, parse_float=number
        )
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", reason="INVALID_JSON"
        ) from None
    except RecursionError:
        raise InvalidArgument("the body is nested too deep", reason="INVALID_JSON") from None
    except ValueError:
        # Python's own bound on the digits of an integer.
        raise InvalidArgument("the body holds a number of too many digits", reason="INVALID_JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(
            f"the key {shown(twice)} stands twice in one object; send it once", reason="DUPLICATE_KEY"
        )
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidArgument(f"{name} is not JSON; send a finite number", reason="INVALID_JSON")
