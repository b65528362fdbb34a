"""HTML pages: rendered on the server, without scripts, fonts or images from anywhere."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse

from gateway import prose

SECURITY_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Pages:
    """The templates of the gateway."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("gateway"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(prose=prose.to_html, inline=prose.to_inline, when=_when, grouped=_grouped)

    def render(self, template: str, content: Mapping[str, Any], *, status: int = HTTPStatus.OK) -> HTMLResponse:
        """Return a page."""
        html = self._templates.get_template(template).render(content)
        return HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)


def _when(rfc3339: str) -> Markup:
    """Return a time of UTC as people read it, to the minute."""
    shown = f"{rfc3339[:10]} {rfc3339[11:16]}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(rfc3339, rfc3339, shown)


def _grouped(number: str) -> str:
    """Return a decimal string with its thousands apart."""
    sign = "-" if number.startswith("-") else ""
    whole, point, fraction = number.removeprefix("-").partition(".")
    return f"{sign}{int(whole):,}{point}{fraction}" if whole.isdecimal() else number
