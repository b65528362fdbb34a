"""Telephone numbers by the number plans of the world (the `phonenumbers` library)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType, ValidationResult

from services.kit.errors import InvalidArgument
from services.usage.domain.call import EXTENSION, TOLL_FREE, Number
from services.usage.domain.event import Rejected

DEFAULT_EXTENSION_DIGITS: Final = 6
MOST_EXTENSION_DIGITS: Final = 8
MOST_PREFIXES: Final = 1_000
_MOST_CHARACTERS: Final = 64
_REMEMBERED: Final = 50_000

_WITHHELD: Final = {"", "anonymous", "restricted", "private", "unavailable", "unknown", "withheld", "<unknown>", "-"}
_PREFIX: Final = re.compile(r"\+[1-9][0-9]{0,14}")
# Star codes of exchanges, and the letters that Asterisk has for extensions of its own.
_CODE: Final = re.compile(r"[*#][0-9*#]{0,15}|[sithoa]")
_URI: Final = re.compile(r"(?:sips?|tel):([^@;>]+).*", re.IGNORECASE)
_KINDS: Final = {
    PhoneNumberType.FIXED_LINE: "fixed_line",
    PhoneNumberType.MOBILE: "mobile",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "fixed_line_or_mobile",
    PhoneNumberType.TOLL_FREE: TOLL_FREE,
    PhoneNumberType.PREMIUM_RATE: "premium_rate",
    PhoneNumberType.SHARED_COST: "shared_cost",
    PhoneNumberType.VOIP: "voip",
    PhoneNumberType.PERSONAL_NUMBER: "personal",
    PhoneNumberType.PAGER: "pager",
    PhoneNumberType.UAN: "uan",
    PhoneNumberType.VOICEMAIL: "voicemail",
}


class _Plain(NamedTuple):
    """A number by the plans alone; with a `fault`, why it is none."""

    text: str = ""
    country: str = ""
    prefix: str = ""
    kind: str = ""
    fault: str = ""


class Numbering:
    """How the numbers of one request are read."""

    def __init__(self, default_region: str = "", own_prefixes: Sequence[str] = (), extension_digits: int = 0) -> None:
        """Prepare.

        Args:
            default_region: ISO 3166-1 alpha-2 code of the country whose national numbers may be sent; none if empty.
            own_prefixes: beginnings of the customer's own numbers in E.164.
            extension_digits: numbers of at most so many digits are extensions; 6 for 0.

        Raises:
            InvalidArgument: names the field.
        """
        if default_region and default_region not in phonenumbers.SUPPORTED_REGIONS:
            raise InvalidArgument.at(
                "default_region",
                f"{default_region[:16]!r} is no country with a number plan; send an ISO 3166-1 code such as IN",
                reason="UNKNOWN_REGION",
            )
        if len(own_prefixes) > MOST_PREFIXES:
            raise InvalidArgument.at("own_prefixes", f"{len(own_prefixes)} are given; at most {MOST_PREFIXES:,}")
        for index, prefix in enumerate(own_prefixes):
            if not _PREFIX.fullmatch(prefix):
                raise InvalidArgument.at(
                    f"own_prefixes[{index}]", f"{prefix[:32]!r} is no beginning of an E.164 number, such as +4420794600"
                )
        if not 0 <= extension_digits <= MOST_EXTENSION_DIGITS:
            raise InvalidArgument.at("extension_digits", f"{extension_digits} is outside 0 to {MOST_EXTENSION_DIGITS}")
        self._region = default_region
        self._own = tuple(own_prefixes)
        self._digits = extension_digits or DEFAULT_EXTENSION_DIGITS

    def callee(self, text: str) -> Number:
        """Return the number that was called.

        Raises:
            Rejected: it is none.
        """
        if not text.strip():
            raise Rejected("MISSING", "callee", "callee is empty; send the number that was called")
        return self._read(text.strip(), "callee")

    def caller(self, text: str) -> Number | None:
        """Return the number that called, None if it was withheld.

        Raises:
            Rejected: it is neither.
        """
        text = text.strip()
        if text.lower() in _WITHHELD:
            return None
        return self._read(text, "caller")

    def _read(self, text: str, field: str) -> Number:
        if len(text) > _MOST_CHARACTERS:
            raise Rejected("BAD_NUMBER", field, f"has {len(text)} characters; at most {_MOST_CHARACTERS} are allowed")
        found = _plain(text, self._region, self._digits)
        if found.fault:
            raise Rejected("BAD_NUMBER", field, f"{text!r} {found.fault}")
        is_own = found.kind == EXTENSION or (bool(self._own) and found.text.startswith(self._own))
        return Number(found.text, found.country, found.prefix, found.kind, is_own)


@lru_cache(maxsize=_REMEMBERED)
def _plain(text: str, region: str, extension_digits: int) -> _Plain:
    """Read a number. Cached: parsing costs some 50 µs, and the same numbers are called again and again."""
    uri = _URI.fullmatch(text)
    if uri is not None:
        text = uri[1]
    if _CODE.fullmatch(text) or (text.isascii() and text.isdigit() and len(text) <= extension_digits):
        return _Plain(text, kind=EXTENSION)
    if not region and text.startswith("00"):
        text = "+" + text[2:]
    if not region and not text.startswith("+"):
        return _Plain(fault="is not in E.164; write it as +442079460018, or name the default_region")
    try:
        number = phonenumbers.parse(text, region or None)
    except NumberParseException:
        return _Plain(fault="is no telephone number; write it as +442079460018")
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return _Plain(fault="has too few or too many digits for its country")
    national = phonenumbers.national_significant_number(number)
    # Ranges are opened faster than tables of them are updated: what is not known to be in use may be a real call.
    country = phonenumbers.region_code_for_number(number)
    if country is None:
        country = phonenumbers.region_code_for_country_code(number.country_code or 0)
    code = national[: phonenumbers.length_of_national_destination_code(number)]
    return _Plain(
        text=phonenumbers.format_number(number, PhoneNumberFormat.E164),
        country=country,
        prefix=f"+{number.country_code}{code}",
        kind=_KINDS.get(phonenumbers.number_type(number), "unknown"),
    )
