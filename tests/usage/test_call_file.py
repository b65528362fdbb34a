"""Files of calls as such, without a service: whatever is in them, a row is read or at fault, and memory stays flat."""

import tracemalloc
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument
from services.usage.domain.call import completed
from services.usage.domain.call_columns import SYNONYMS
from services.usage.domain.call_file import CallFile, Layout, Options, Read
from services.usage.domain.csv_rows import DELIMITERS, ENCODINGS, MOST_CHARACTERS, Rows, lines
from services.usage.numbering import Numbering

UTC = ZoneInfo("UTC")
HEADER = b"id,customer,from,to,start,duration,billsec,status,direction,trunk\n"
ROW = b"1,acme,+442079460018,+919876543210,2026-10-05 10:00:00,70,60,ANSWERED,outbound,t\n"


def read(
    chunks: Iterator[bytes] | Sequence[bytes],
    encoding: str = "utf-8",
    delimiter: str = "",
    layout: Layout | None = None,
) -> Iterator[Read]:
    rows = Rows(lines(chunks, encoding), delimiter)
    yield from CallFile(iter(rows), Options(UTC, layout=layout), Numbering("IN"))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


CELLS = st.one_of(
    st.sampled_from(
        [
            *("", "acme", "cus_1", "+442079460018", "098765 43210", "1001", "anonymous", "s", "*97", "sip:a@b", "+"),
            *("2026-10-05 10:00:00", "2026-10-05T10:00:00Z", "0001-01-01 00:00:00+14:00", "9999-12-31 23:59:59-14:00"),
            *("1791194400", "05/10/2026 10:00", "60", "-1", "1e999999999", "NaN", "0:01:30", "99999:99", "ANSWERED"),
            *("16", "inbound", "\0", '"', '"a', 'a"b', "a\r\nb", "\u2028", "\ud800", "é", "🙂", "٣", "x" * 300, "id"),
        ]
    ),
    st.text(max_size=12),
)
WORDS = st.sampled_from([word for words in SYNONYMS.values() for word in words[:3]] + ["", "Other", "id"])
TABLES = st.tuples(st.lists(WORDS, max_size=14), st.lists(st.lists(CELLS, max_size=21), max_size=12))


def as_file(table: tuple[list[str], list[list[str]]], delimiter: str, encoding: str, end: str) -> bytes:
    rows = [delimiter.join(row) for row in (table[0], *table[1])]
    return end.join(rows).encode(encoding, "replace")


@settings(max_examples=400, deadline=None)
@given(
    table=TABLES,
    delimiter=st.sampled_from(DELIMITERS),
    given_delimiter=st.booleans(),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    written_in=st.sampled_from(["utf-8", "iso-8859-1", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    layout=st.sampled_from([None, *Layout]),
    places=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_table_is_read_row_by_row_or_refused_as_a_whole(
    table: tuple[list[str], list[list[str]]],
    delimiter: str,
    encoding: str,
    written_in: str,
    end: str,
    layout: Layout | None,
    places: list[int],
    *,
    given_delimiter: bool,
) -> None:
    data = as_file(table, delimiter, written_in, end)
    check(data, places, encoding, delimiter if given_delimiter else "", layout)


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=300),
    is_behind_header=st.booleans(),
    places=st.lists(st.integers(0, 400), max_size=6),
    encoding=st.sampled_from(sorted(ENCODINGS)),
)
def test_any_bytes_are_read_row_by_row_or_refused_as_a_whole(
    data: bytes, places: list[int], encoding: str, *, is_behind_header: bool
) -> None:
    check(HEADER + ROW + data if is_behind_header else data, places, encoding, "", None)


def check(data: bytes, places: list[int], encoding: str, delimiter: str, layout: Layout | None) -> None:
    try:
        whole = list(read([data], encoding, delimiter, layout))
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            list(read(cut(data, places), encoding, delimiter, layout))
        return
    for row in whole:
        assert (row.record is None) != (row.fault is None)
        if row.record is not None:
            completed(row.record).attributes()
        if row.fault is not None:
            assert row.fault.reason
            # What is told travels as UTF-8.
            (row.fault.field + row.fault.message).encode()
    numbers = [row.line for row in whole]
    assert numbers == sorted(numbers)
    # Where a file is cut into chunks makes no difference.
    parts = list(read(cut(data, places), encoding, delimiter, layout))
    assert [(row.line, row.record, str(row.fault)) for row in parts] == [
        (row.line, row.record, str(row.fault)) for row in whole
    ]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_utf_16_is_told_by_its_mark_wherever_the_file_is_cut(mark: bytes, encoding: str) -> None:
    for chunks in ([mark], [mark[:1], mark[1:], b"i\0"], [b"", mark[:1], b"", mark[1:] + b"i\0"]):
        with pytest.raises(InvalidArgument, match="UTF-16"):
            list(lines(chunks, encoding))
    assert list(lines([mark[:1]], "iso-8859-1")) == [mark[:1].decode("iso-8859-1")]


def test_lines_end_in_three_ways_and_a_return_at_a_cut_is_none_of_its_own() -> None:
    assert list(lines([b"a\r", b"\nb\rc\n", b"\r", b"d"], "utf-8")) == ["a\n", "b\n", "c\n", "\n", "d"]
    # A file of an old Macintosh, longer than what a line may have.
    assert sum(1 for _ in lines([b"abc\r" * 100_000], "utf-8")) == 100_000


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW.replace(b"1,", b",", 1),
        b'"' + b"x" * 200 + b"\n",
        b"x" * (MOST_CHARACTERS * 2) + b"\n",
        b"no,such,row" + b"." * 200 + b"\n",
    ],
    ids=["good", "without an id", "stray quotes", "huge lines", "too short"],
)
def test_memory_stays_flat(row: bytes) -> None:
    """A file that is twice as long takes hardly more at its highest."""

    def highest(chunks: int) -> int:
        chunk = row * max(1, 16_384 // len(row))
        tracemalloc.start()
        rows = sum(1 for _ in read(iter([HEADER + ROW, *[chunk] * chunks])))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows > chunks
        return most

    small, large = highest(60), highest(120)
    assert large < small + (1 << 20)


def test_rows_without_an_id_are_told_apart_by_their_number_among_identical_ones() -> None:
    row = ROW.replace(b"1,", b",", 1)
    other = row.replace(b"70", b"71")
    ids = [each.record.id for each in read([HEADER + row + other + row]) if each.record]
    again = [each.record.id for each in read([HEADER + row + other + row + row]) if each.record]
    assert len(set(ids)) == 3
    assert ids[0].removesuffix("-1") == ids[2].removesuffix("-2")
    assert again[:3] == ids
