"""Takes secrets out of what is logged: keys, tokens, passwords in URLs, e-mail addresses, card numbers."""

import re
from typing import Final

_PATTERNS: Final = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)([^/\s:@]*):[^@\s/]+@"), r"\1:[redacted]@"),
    (re.compile(r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]+"), "[redacted key]"),
    (re.compile(r"\b(?:whsec|rzp_(?:live|test))_[A-Za-z0-9+/=]+"), "[redacted key]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [redacted]"),
    (
        re.compile(
            r"(?i)\b(password|passwd|secret|token|api[_-]?key|authorization)(\"?'?\s*[=:]\s*\"?'?)[^\s\"',;&}]+"
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"), "[redacted e-mail]"),
)
_SECRET_NAMES: Final = re.compile(r"(?i)password|passwd|secret|token$|api_?key|authorization|card_?number")
_CARD: Final = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.])")


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return _CARD.sub(_redact_card, text)


def is_secret_name(name: str) -> bool:
    """Say whether a field of this name is never logged (`secret`, `api_key`, `authorization`, …)."""
    return _SECRET_NAMES.search(name) is not None


def is_card_number(digits: str) -> bool:
    """Say whether 13 to 19 digits pass the Luhn check of ISO/IEC 7812-1, as every payment card number does."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the sum of a two-digit product's digits
    return 13 <= len(digits) <= 19 and total % 10 == 0  # noqa: PLR2004 - lengths of ISO/IEC 7812-1


def _redact_card(match: re.Match[str]) -> str:
    digits = re.sub(r"[ -]", "", match.group())
    return "[redacted card]" if is_card_number(digits) else match.group()
