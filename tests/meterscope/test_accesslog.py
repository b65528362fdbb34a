"""Access log lines, real ones and broken ones."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterscope import accesslog
from meterscope.accesslog import MalformedLine, Request

LOGS = Path(__file__).parents[2] / "examples" / "access-logs"
COMBINED = (
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /presentations/search.png HTTP/1.1" 200 203023 '
    '"http://semicomplete.com/presentations/" "Mozilla/5.0 (Macintosh)"\n'
)


def test_a_combined_line_is_read() -> None:
    assert accesslog.parse(COMBINED) == Request(
        client="83.149.9.216",
        time=datetime(2015, 5, 17, 10, 5, 3, tzinfo=UTC),
        method="GET",
        path="/presentations/search.png",
        status=200,
        size=203023,
    )


def test_a_common_line_is_read() -> None:
    request = accesslog.parse('::1 - bob [22/Oct/2021:02:28:56 -0700] "HEAD / HTTP/1.0" 304 -')
    assert request.client == "::1"
    assert request.time == datetime(2021, 10, 22, 9, 28, 56, tzinfo=UTC)
    assert (request.method, request.size) == ("HEAD", 0)


def test_a_line_that_was_cut_off_inside_its_user_agent_is_read() -> None:
    assert accesslog.parse(COMBINED.replace('Macintosh)"', "Macint")).size == 203023


def test_quotes_may_be_escaped() -> None:
    line = r'1.2.3.4 - - [22/Oct/2021:02:28:56 -0700] "GET /a?q=\"b\" HTTP/1.1" 200 5 "-" "say \"hi\""'
    assert accesslog.parse(line).path == r"/a?q=\"b\""


@pytest.mark.parametrize("request_line", [r"\x16\x03\x01", "-", "", "GET /without-protocol"])
def test_a_request_line_that_is_not_http_is_kept_whole(request_line: str) -> None:
    request = accesslog.parse(f'1.2.3.4 - - [22/Oct/2021:02:28:56 -0700] "{request_line}" 400 0 "-" "-"')
    assert (request.method, request.path, request.status) == ("", request_line, 400)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "neither combined nor common log format"),
        ("hello world", "'hello world'"),
        (COMBINED.replace(" 200 ", " 2x0 "), "neither combined nor common"),
        (COMBINED.replace("203023", "-5"), "neither combined nor common"),
        (COMBINED.replace("17/May", "32/May"), "no such time: '32/May/2015:10:05:03 [+]0000"),
        (COMBINED.replace("17/May", "17/Foo"), "no such time"),
        (COMBINED.replace("10:05", "24:05"), "no such time"),
        (COMBINED.replace("+0000", "+2500"), "no such time"),
    ],
)
def test_a_malformed_line_says_what_is_wrong(line: str, words: str) -> None:
    with pytest.raises(MalformedLine, match=words):
        accesslog.parse(line)


def test_a_file_is_read_plain_or_gzipped_with_its_line_numbers(tmp_path: Path) -> None:
    content = (COMBINED + "broken\n" + COMBINED).encode() + b'\xff - - [22/Oct/2021:02:28:56 -0700] "-" 400 0\n'
    plain, zipped = tmp_path / "a.log", tmp_path / "b.log.gz"
    plain.write_bytes(content)
    zipped.write_bytes(gzip.compress(content))
    lines = list(accesslog.read(plain))
    assert lines == list(accesslog.read(zipped))
    assert [(line.number, line.request is not None) for line in lines] == [(1, True), (2, False), (3, True), (4, True)]
    assert len(list(accesslog.read(plain, limit=2))) == 2
    assert [accesslog.count(zipped), accesslog.count(plain, limit=2)] == [4, 2]


def test_every_line_of_the_examples_counts() -> None:
    lines = [line for log in sorted(LOGS.glob("*.gz")) for line in accesslog.read(log)]
    requests = [line.request for line in lines if line.request]
    assert len(lines) == len(requests) == 11_906
    assert sum(request.size for request in requests) == 3_480_555_124
    assert len({request.client for request in requests}) == 2_477
