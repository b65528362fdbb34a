"""Takes secrets out of what leaves the process by logs, spans and Sentry: keys, tokens, passwords, e-mails, card numbers.

The collector does so once more (otel-collector/collector.yaml), for what others send.
"""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

REDACTED: Final = "[redacted]"

# What one of has to be there in small letters, what is replaced, by what. Nearly no text has any: looking for words first
# makes a line of a log ten times cheaper.
_PATTERNS: Final = (
    # scheme://user:password@host, also where the password holds / or @; scheme://key@host
    (("://",), re.compile(r"(?<=://)([^/\s:@\"'<>]{0,256}):[^\s\"'<>]{1,256}@"), r"\1:[redacted]@"),
    (("://",), re.compile(r"(?<=://)[^/\s:@\"'<>?#]{1,256}@"), "[redacted]@"),
    # The path is the secret.
    (
        ("slack.com/", "/api/webhooks/", "webhook.office.com/", "pagerduty.com/integration/"),
        re.compile(
            r"(?i)\b(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
            r"|webhook\.office\.com/|events\.pagerduty\.com/integration/)[^\s\"'<>]+"
        ),
        r"\1[redacted]",
    ),
    (("_live_", "_test_"), re.compile(r"\b(?:sk|rk|pk|rzp)_(?:live|test)_[A-Za-z0-9]+"), "[redacted key]"),
    (("whsec_",), re.compile(r"\bwhsec_[A-Za-z0-9+/=]+"), "[redacted key]"),
    (
        ("xox", "gho_", "ghp_", "ghs_", "ghu_", "akia"),
        re.compile(r"\b(?:xox[abeprs]-[A-Za-z0-9-]{8,}|gh[opsu]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})"),
        "[redacted key]",
    ),
    (("eyj",), re.compile(r"\beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?"), "[redacted token]"),
    (("bearer", "basic"), re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [redacted]"),
    # name=value, name: "a value", ("name", "value"), with or without the backslashes of a text within a text
    (
        ("passw", "secret", "token", "api", "authorization", "private"),
        re.compile(
            r"(?i)(password|passwd|secret|token|api[_-]?key|authorization|private[_-]?key)"
            r"(\\*[\"']?\s*[=:]\s*|\\*[\"']\s*,\s*)"
            r"b?(?:\\*\"[^\"]*\"?|\\*'[^']*'?|[^\s\"',;&})\\]+)"
        ),
        r"\1\2[redacted]",
    ),
    # What PostgreSQL quotes of the data when it refuses it.
    (("failing row",), re.compile(r"(Failing row contains \().*(\))"), r"\1[redacted]\2"),
    (
        ("key (",),
        re.compile(r"(Key \([^)]*\)=\().*?(\) (?:already exists|is not present|is still referenced|conflicts))"),
        r"\1[redacted]\2",
    ),
    (("copy ",), re.compile(r"(COPY \w+, line \d+(?:, column \w+)?: \")[^\n]*"), r"\1[redacted]"),
)
_EMAIL: Final = re.compile(r"[\w.%+-]{1,64}(?:@|%40)[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")
_SECRET_NAMES: Final = re.compile(
    r"(?i)password|passwd|secret|token$|api[_.-]?key|authorization|card[_.-]?number|cookie|credential"
    r"|private[_.-]?key|dsn$|^(?:pan|cvc|cvv)$"
)
# Payment cards begin with 2 to 6; what begins with 1 is a time stamp.
# Nor is it the beginning of a UUID.
_CARD: Final = re.compile(
    r"(?<![A-Za-z0-9])(?<!\d\.)[2-6](?:(?:%20|[ +-])?\d){12,18}"
    r"(?![A-Za-z0-9]|\.\d|-[\da-fA-F]{4}-[\da-fA-F]{12}(?![A-Za-z0-9]))"
)
# A telephone number (ITU-T E.164): no more than 15 digits, and a + that stands for no space of a form.
_PHONE: Final = re.compile(r"(?<![A-Za-z0-9=])\+\d{13,15}")
_HARMLESS: Final = (bool, float, Decimal, date, timedelta, type(None))


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced. What was redacted stays as it is."""
    small = text.lower()
    for words, pattern, replacement in _PATTERNS:
        if any(word in small for word in words):
            text = pattern.sub(replacement, text)
    if "@" in text or "%40" in text:
        text = _EMAIL.sub("[redacted e-mail]", text)
    return _CARD.sub(_redact_card, text)


def redact_value(value: Any, name: str = "") -> Any:
    """Return a value as it may be shown: texts redacted, at any depth; everything under a secret's name replaced.

    Numbers, times and None stay; mappings and sequences become dicts and lists; anything else becomes its redacted text.
    """
    if name and is_secret_name(name):
        return REDACTED
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, _HARMLESS):
        return value
    if isinstance(value, int):
        return redact(str(value)) if is_card_number(str(value)) else value
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_value(part, str(key)) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(part, name) for part in value]
    return redact(str(value))


def is_secret_name(name: str) -> bool:
    """Say whether a field of this name is never shown (`secret`, `api_key`, `authorization`, …)."""
    return _SECRET_NAMES.search(name) is not None


def is_card_number(digits: str) -> bool:
    """Say whether 13 to 19 digits pass the Luhn check of ISO/IEC 7812-1, as every payment card number does."""
    if not 13 <= len(digits) <= 19:  # noqa: PLR2004 - lengths of ISO/IEC 7812-1
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the sum of a two-digit product's digits
    return total % 10 == 0


def _redact_card(match: re.Match[str]) -> str:
    if match.start() and (phone := _PHONE.match(match.string, match.start() - 1)) and phone.end() == match.end():
        return match.group()
    digits = re.sub(r"%20|[ +-]", "", match.group())
    return "[redacted card]" if is_card_number(digits) else match.group()
