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
    # Cookie: a=1; b=2: all that follows, pair by pair
    (
        ("cookie",),
        re.compile(
            r"(?i)(cookie)"
            r"(\\*[\"']?\s*[=:]\s*|\\*[\"']\s*,\s*)"
            r"b?(?:\\*\"[^\"]*\"?|\\*'[^']*'?|[^\s\"',;&})\\]+(?:;\s*[^\s\"',;&})\\]+)*)"
        ),
        r"\1\2[redacted]",
    ),
    # name=value, name: "a value", ("name", "value"), with or without the backslashes of a text within a text
    (
        ("passw", "pwd", "secret", "token", "api", "authorization", "private", "dsn"),
        re.compile(
            r"(?i)(password|passwd|pwd|secret|token|api[_-]?key|authorization|private[_-]?key|dsn)"
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
    r"(?i)password|passwd|pwd$|secret|token$|api[_.-]?key|authorization|card[_.-]?number|cookie|credential"
    r"|private[_.-]?key|dsn$|^(?:pan|cvc|cvv)$"
)
# Whose cards begin with what (ISO/IEC 7812-1; the networks publish their ranges), and how many digits they have. Numbers
# of 15 digits are else devices' (IMEI), which pass the Luhn check as well.
_NETWORKS: Final = (
    (re.compile(r"4"), {13, 16, 19}),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),  # Mastercard
    (re.compile(r"3[47]|2131|1800"), {15}),  # American Express; old ones of JCB
    (re.compile(r"30[0-5]|36|3[89]"), {14, 16}),  # Diners Club
    (re.compile(r"35(?:2[89]|[3-8])|6[0245]|508"), {16, 17, 18, 19}),  # JCB, Discover, UnionPay, RuPay
    (re.compile(r"50|5[6-8]|6[37]"), {16, 17, 18, 19}),  # Maestro
    (re.compile(r"220[0-4]"), {16, 17, 18, 19}),  # Mir
)
_CARD_LENGTHS: Final = range(13, 20)
# A UUID, which is left as it is; or groups of digits: a card's number, and what may stand before and behind it.
_DIGITS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?P<uuid>[\da-fA-F]{8}(?:-[\da-fA-F]{4}){3}-[\da-fA-F]{12})"
    r"|(?<!\d\.)\d(?:(?:%20|[ +-])?\d){12,30})(?![A-Za-z0-9]|\.\d)"
)
_GROUP: Final = re.compile(r"%20|[ +-]|\d+")
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
    return _DIGITS.sub(_redact_card, text)


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
    """Say whether digits are a payment card's: of a network's range and length, with the right check digit."""
    is_issued = any(len(digits) in lengths and begin.match(digits) for begin, lengths in _NETWORKS)
    return is_issued and has_check_digit(digits)


def has_check_digit(digits: str) -> bool:
    """Say whether 13 to 19 digits pass the Luhn check of ISO/IEC 7812-1, as card numbers do, and one in ten of others."""
    if len(digits) not in _CARD_LENGTHS:
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the sum of a two-digit product's digits
    return total % 10 == 0


def _redact_card(match: re.Match[str]) -> str:
    """Redact the card among groups of digits, which may be followed by its date and code."""
    text = match.group()
    if match["uuid"]:
        return text
    groups = [group for group in _GROUP.finditer(text) if group.group().isdecimal()]
    for place, first in enumerate(groups):
        start = first.start()
        for last in reversed(groups[place:]):
            digits = re.sub(r"%20|[ +-]", "", text[start : last.end()])
            if is_card_number(digits) and not _is_phone(match.string, match.start() + start, len(digits)):
                return f"{text[:start]}[redacted card]{text[last.end() :]}"
    return text


def _is_phone(text: str, start: int, length: int) -> bool:
    phone = _PHONE.match(text, start - 1) if start else None
    return phone is not None and phone.end() == start + length
