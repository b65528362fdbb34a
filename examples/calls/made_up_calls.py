"""Made-up calls over the real number plans of the United Kingdom and India; see README.md.

    python examples/calls/made_up_calls.py --count 1000 --seed 7 --malformed 0.02 > calls.csv

Nobody made these calls. The same seed makes the same calls.
"""

import argparse
import csv
import gzip
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

HEADER: Final = (
    "call_id",
    "account",
    "caller",
    "callee",
    "call_type",
    "start_time",
    "duration",
    "billsec",
    "disposition",
    "trunk",
)
# How a row is spoilt, and the column at fault.
SPOILT: Final = ("callee", "start_time", "duration", "disposition", "columns")
CUSTOMERS: Final = 20
FIRST_DAY: Final = datetime(2026, 10, 1, tzinfo=UTC)
DAYS: Final = 31

_FOLDER: Final = Path(__file__).parent
_LENGTH: Final = 10
_PART: Final = re.compile(r"\[([0-9-]+)\]|(x)|(\d)")
_SPAN: Final = re.compile(r"(\d)-(\d)|(\d)")
_EXTENSIONS: Final = range(1001, 1041)
# Calls by hour of the day: few at night, most before and after noon.
_HOURS: Final = (1, 1, 1, 1, 1, 2, 4, 8, 18, 30, 34, 32, 24, 28, 32, 30, 26, 20, 14, 10, 8, 6, 3, 2)


@dataclass(frozen=True)
class MadeUpCall:
    """A call that nobody made.

    Attributes:
        number: its place, from 0.
        customer: the customer's key.
        country: of the callee, ISO 3166-1; empty for an extension.
        call_type: `inbound`, `outbound`, `internal` or `toll_free`.
        spoilt: what is wrong with its row, of `SPOILT`; empty for most.
        row: as in the file.
    """

    number: int
    customer: str
    country: str
    call_type: str
    billable: int
    start: datetime
    spoilt: str
    row: tuple[str, ...]


@dataclass(frozen=True)
class _Range:
    code: str
    prefix: str
    country: str
    is_toll_free: bool


def calls(seed: int, count: int, *, malformed: float = 0.0, customers: int = CUSTOMERS) -> Iterator[MadeUpCall]:
    """Make calls up.

    Args:
        seed: the same seed makes the same calls.
        count: how many.
        malformed: the share of rows that are spoilt, 0 to 1.
        customers: among so many keys `made-up-1`, `made-up-2`, …; each has its own trunk.
    """
    chance = random.Random(seed)
    plain = [each for each in _ranges() if not each.is_toll_free]
    free = [each for each in _ranges() if each.is_toll_free]
    for number in range(count):
        customer = chance.randrange(customers) + 1
        call_type = chance.choices(("outbound", "inbound", "internal", "toll_free"), (60, 25, 10, 5))[0]
        inside = str(chance.choice(_EXTENSIONS))
        used = chance.choice(free if call_type == "toll_free" else plain)
        outside = f"+{used.code}{_dialled(used.prefix, chance)}"
        caller, callee, country = {
            "outbound": (inside, outside, used.country),
            "toll_free": (inside, outside, used.country),
            "inbound": (outside, inside, ""),
            "internal": (inside, str(chance.choice(_EXTENSIONS)), ""),
        }[call_type]
        ended = chance.choices(("ANSWERED", "NO ANSWER", "BUSY", "FAILED"), (78, 14, 6, 2))[0]
        ringing = chance.randrange(2, 31)
        # Half of the calls are shorter than 90 s, a few last an hour.
        talk = min(7_200, math.ceil(chance.lognormvariate(math.log(90), 1.1))) if ended == "ANSWERED" else 0
        hour = chance.choices(range(24), _HOURS)[0]
        start = FIRST_DAY + timedelta(
            days=chance.randrange(DAYS), hours=hour, minutes=chance.randrange(60), seconds=chance.randrange(60)
        )
        row = [
            f"call-{seed}-{number}",
            f"made-up-{customer}",
            caller,
            callee,
            call_type,
            start.strftime("%Y-%m-%d %H:%M:%S"),
            str(ringing + talk),
            str(talk),
            ended,
            f"trunk-{customer}",
        ]
        spoilt = chance.choice(SPOILT) if chance.random() < malformed else ""
        _spoil(row, spoilt)
        yield MadeUpCall(number, f"made-up-{customer}", country, call_type, talk, start, spoilt, tuple(row))


def write(made: Iterator[MadeUpCall], file: object) -> None:
    """Write calls as CSV with a header into a text file."""
    writer = csv.writer(file)  # type: ignore[arg-type]
    writer.writerow(HEADER)
    writer.writerows(call.row for call in made)


def _spoil(row: list[str], spoilt: str) -> None:
    if spoilt == "columns":
        del row[-3:]
    elif spoilt:
        wrong = {"callee": "+44 12", "start_time": "soon", "duration": "-1", "disposition": "PERHAPS"}
        row[HEADER.index(spoilt)] = wrong[spoilt]


@cache
def _ranges() -> tuple[_Range, ...]:
    """The ranges of numbers with ten digits that anybody may call, and what a call costs the caller."""
    found = []
    for code in ("44", "91"):
        with gzip.open(_FOLDER / f"e164-ranges-{code}.csv.gz", "rt", encoding="utf-8") as file:
            for line in csv.DictReader(file, delimiter=";"):
                cells = {(name or "").strip(): (cell or "").strip() for name, cell in line.items() if name}
                # Free numbers may be called from several; the first one of the plan is whose they are shown as.
                country = cells["Regions"].strip('"').partition(",")[0]
                is_plain = cells["Tariff"] == "STANDARD_RATE" and cells["Type"] in {"FIXED_LINE", "MOBILE"}
                is_free = cells["Tariff"] == "TOLL_FREE" and cells["Type"] == "FIXED_LINE"
                if (
                    (is_plain or is_free)
                    and cells["Length"] == str(_LENGTH)
                    and country in {"GB", "IN"}
                    and cells.get("National Only", "false") != "true"
                ):
                    found.append(_Range(code, cells["Prefix"], country, is_free))
    return tuple(found)


def _dialled(prefix: str, chance: random.Random) -> str:
    """Return ten digits that begin as a prefix such as `113[0-58]` says; an `x` is any digit."""
    digits = ""
    for span, anything, digit in _PART.findall(prefix):
        if digit:
            digits += digit
        else:
            digits += chance.choice("0123456789" if anything else _spread(span))
    return digits + "".join(chance.choices("0123456789", k=_LENGTH - len(digits)))


def _spread(span: str) -> str:
    """Return the digits of `0-58`: 0 to 5, and 8."""
    return "".join(
        single or "".join(str(each) for each in range(int(first), int(last) + 1))
        for first, last, single in _SPAN.findall(span)
    )


def main() -> None:
    """Write calls to standard output."""
    parser = argparse.ArgumentParser(description="Write made-up calls as CSV.")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--malformed", type=float, default=0.02, help="share of spoilt rows, 0 to 1")
    chosen = parser.parse_args()
    write(calls(chosen.seed, chosen.count, malformed=chosen.malformed), sys.stdout)


if __name__ == "__main__":
    main()
