"""The runbooks' queries, asked of the real Prometheus and Loki: both take them, and what Loki selects by is there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from eventually import eventually

from tests.rules.rule_files import RUNBOOKS
from tests.stack.conftest import RealStack

pytestmark = pytest.mark.stack

PATHS = {"Prometheus": "/api/v1/query", "Loki": "/loki/api/v1/query_range"}
LANGUAGES = {"promql": "Prometheus", "logql": "Loki"}
# What a reader fills in.
VARIABLES = {"$tenant_id": "cus_1"}


@dataclass(frozen=True)
class Query:
    """A query of a page, and who answers it."""

    page: str
    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def fenced(page: str, text: str) -> Iterator[Query]:
    """A query a line of each block of a query language."""
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        if language in LANGUAGES:
            yield from (Query(page, line, LANGUAGES[language]) for line in block.splitlines() if line)


def inline(page: str, text: str) -> Iterator[Query]:
    """What stands in a sentence or a cell and looks like a query: braces with a matcher, or a function of a series."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        if re.match(r"\{\w+\s*(?:=~?|!=|!~)\s*\"", code):
            yield Query(page, code, "Loki")
        elif re.search(r"\w\{\w+(?:=~?|!=|!~)\"|\w\(\w+[(\[]|\w \(\w+[(\[]", code) and "…" not in code:
            yield Query(page, code, "Prometheus")


def queries() -> list[Query]:
    found = []
    for path in sorted(RUNBOOKS.glob("*.md")):
        text = path.read_text()
        found += [*fenced(path.stem, text), *inline(path.stem, text)]
    return found


QUERIES = queries()
OF_LOKI = [query for query in QUERIES if query.source == "Loki"]


def ask(stack: RealStack, query: Query) -> httpx.Response:
    text = query.text
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    address = f"http://{stack.addresses[query.source]}{PATHS[query.source]}"
    return httpx.get(address, params={"query": text}, timeout=30)


def test_queries_of_both_languages_are_found() -> None:
    assert {query.source for query in QUERIES} == set(LANGUAGES.values())
    # Those of the table of older queries are inline.
    assert any(query.page == "README" for query in QUERIES)
    (seen,) = inline("page", 'ask `{service_name="usage"} |= "x"`, not `LOG_DIR` nor `topk(5, …)`')
    assert (seen.source, seen.text) == ("Loki", '{service_name="usage"} |= "x"')


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_is_taken(stack: RealStack, query: Query) -> None:
    answer = ask(stack, query)
    assert answer.status_code == httpx.codes.OK, answer.text


@pytest.mark.parametrize(
    ("text", "source"),
    [("sum by (job (up)", "Prometheus"), ('{service_name="usage"} | severity_text=WARN', "Loki")],
)
def test_a_query_that_is_none_is_refused(stack: RealStack, text: str, source: str) -> None:
    assert ask(stack, Query("", text, source)).status_code == httpx.codes.BAD_REQUEST


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("query", OF_LOKI, ids=str)
def test_what_lines_are_selected_by_is_there(stack: RealStack, query: Query) -> None:
    selector, _, stages = query.text.partition("}")
    lines = eventually(lambda: stack.lines(f"{selector}}}"), seconds=60)
    labels = set(re.findall(r"\|\s*(\w+)\s*(?:=~?|!=|!~)", stages))
    found = {label for stream, _ in lines for label in stream}
    # A process that only starts has no trace.
    assert labels - {"trace_id"} <= found
