"""Rows of a CSV file that comes in chunks: decoded, cut into lines and records, each with the line that it begins on.

Memory stays flat whatever the file: what is no record within 64 lines and 64 Ki characters is reported as a bad one, and
reading goes on behind its first line, so that a stray quote costs one row and not the rest of the file.
"""

import codecs
import csv
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from services.kit.errors import InvalidArgument

DELIMITERS: Final = (",", ";", "\t", "|")
ENCODINGS: Final = {"utf-8": "utf-8-sig", "iso-8859-1": "iso-8859-1", "windows-1252": "windows-1252"}
MOST_LINES: Final = 64
MOST_CHARACTERS: Final = 64 * 1024
_SAMPLE_LINES: Final = 50
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARK_BYTES: Final = 2


class Row(NamedTuple):
    """A record: the line that it begins on, from 1, and its cells; or, with a `fault`, why it is none."""

    line: int
    cells: list[str]
    fault: str = ""


class _TooLong(Exception):
    """More lines or characters than a record may have."""


def lines(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Decode a file and cut it into lines, each with its end. Of a line that is too long only the beginning is kept.

    Bytes that are none of the encoding become lone surrogates: the row that they are in is at fault, not the file.

    Args:
        chunks: the file, cut anywhere.
        encoding: one of `ENCODINGS`.

    Raises:
        InvalidArgument: the file is UTF-16.
    """
    decoder = codecs.getincrementaldecoder(ENCODINGS[encoding])("surrogateescape")
    rest, is_cut = "", False
    for chunk in _no_utf_16(chunks):
        # Cut by hand: str.splitlines takes U+2028 and others for ends, too.
        parts = (rest + decoder.decode(chunk)).replace("\r\n", "\n").split("\n")
        rest = parts.pop()
        for part in parts:
            if is_cut:
                is_cut = False
                continue
            yield from _ended(part)
        if len(rest) > MOST_CHARACTERS and "\r" in rest[:-1] and not is_cut:
            head, _, tail = rest[:-1].rpartition("\r")
            yield from _ended(head)
            rest = tail + rest[-1]
        if len(rest) > MOST_CHARACTERS:
            if not is_cut:
                yield rest[: MOST_CHARACTERS + 1]
            is_cut, rest = True, rest[-1:] if rest.endswith("\r") else ""
    rest += decoder.decode(b"", final=True)
    if rest and not is_cut:
        yield from _ended(rest, last="")


def _no_utf_16(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file's chunks; its first two bytes, which tell, may come one by one."""
    rest = iter(chunks)
    first = b""
    for chunk in rest:
        first += chunk
        if len(first) >= _MARK_BYTES:
            break
    if first.startswith(_UTF_16):
        raise InvalidArgument.at("encoding", "the file is UTF-16; save it as UTF-8", reason="BAD_ENCODING")
    yield first
    yield from rest


def _ended(text: str, last: str = "\n") -> Iterator[str]:
    """Yield a line, or several where lone carriage returns end them."""
    *firsts, text = text.split("\r")
    for first in firsts:
        yield first + "\n"
    if text or last:
        yield text + last


class Rows:
    """The records of a file."""

    def __init__(self, source: Iterator[str], delimiter: str) -> None:
        """Prepare.

        Args:
            source: the lines.
            delimiter: one of `DELIMITERS`; empty to be told from the first lines.

        Raises:
            InvalidArgument: no delimiter is to be seen.
        """
        self._source = source
        self._ahead: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0
        self._line = 1
        self.delimiter = delimiter or self._told()

    def __iter__(self) -> Iterator[Row]:
        """Yield the records but empty lines."""
        while True:
            self._taken, self._size = [], 0
            reader = csv.reader(self._pull(), delimiter=self.delimiter, strict=True)
            try:
                cells = next(reader, None)
            except _TooLong:
                fault = f"is no record within {MOST_LINES} lines and {MOST_CHARACTERS} characters; close its quotes"
            except csv.Error as error:
                fault = f"is no CSV: {error}"
            else:
                if cells is None:
                    return
                if cells:
                    yield Row(self._line, cells)
                self._line += len(self._taken)
                continue
            # The lines behind the first may be rows of their own.
            self._ahead.extendleft(reversed(self._taken[1:]))
            yield Row(self._line, [], fault)
            self._line += 1

    def _pull(self) -> Iterator[str]:
        while True:
            line = self._ahead.popleft() if self._ahead else next(self._source, None)
            if line is None:
                return
            self._taken.append(line)
            self._size += len(line)
            if self._size > MOST_CHARACTERS or len(self._taken) > MOST_LINES:
                raise _TooLong
            yield line

    def _told(self) -> str:
        """Tell the delimiter: the one by which the most of the first rows have the same number of columns."""
        sample: list[str] = []
        for line in self._source:
            sample.append(line)
            if len(sample) >= _SAMPLE_LINES:
                break
        self._ahead.extend(sample)
        ranks = {delimiter: _agreement(sample, delimiter) for delimiter in DELIMITERS}
        best = max(ranks, key=lambda delimiter: ranks[delimiter])
        if not any(ranks[best]) and any(line.strip() for line in sample):
            raise InvalidArgument.at(
                "delimiter",
                "the first rows have no columns by comma, semicolon, tab or bar; name the delimiter, or send CSV",
                reason="NO_DELIMITER",
            )
        return best


def _agreement(sample: list[str], delimiter: str) -> tuple[int, int]:
    """Return how many records have the most frequent number of columns, and that number; zeros if there are no columns."""
    short = [line for line in sample if len(line) <= MOST_CHARACTERS]
    try:
        counts = Counter(len(cells) for cells in csv.reader(short, delimiter=delimiter) if len(cells) > 1)
    except csv.Error:
        counts = Counter(line.count(delimiter) + 1 for line in short if delimiter in line)
    if not counts:
        return 0, 0
    columns, rows = max(counts.items(), key=lambda item: (item[1], item[0]))
    return rows, columns
