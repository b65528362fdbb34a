"""The contract's comments as HTML: paragraphs, lists and `code`."""

import re
from typing import Final

from markupsafe import Markup, escape

_CODE: Final = re.compile(r"`([^`]+)`")
_BULLET: Final = "- "


def to_html(text: str) -> Markup:
    """Return the text as HTML. Blank lines separate paragraphs, lines that begin with `- ` are a list."""
    return Markup("").join(_block(block) for block in text.split("\n\n") if block.strip())


def to_inline(text: str) -> Markup:
    """Return one line of text as HTML, with its `code`."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(" ".join(text.split())))))  # noqa: S704 - escaped before


def _block(block: str) -> Markup:
    lines = block.strip().splitlines()
    if all(line.startswith(_BULLET) for line in lines):
        items = Markup("").join(Markup("<li>{}</li>").format(to_inline(line.removeprefix(_BULLET))) for line in lines)
        return Markup("<ul>{}</ul>").format(items)
    return Markup("<p>{}</p>").format(to_inline(block))
