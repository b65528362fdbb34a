"""HTML pages: rendered on the server, without scripts, fonts or images from anywhere."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from zoneinfo import ZoneInfo

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
        self._templates.filters.update(
            prose=prose.to_html, inline=prose.to_inline, when=_when, day=_day, grouped=_grouped
        )

    def render(self, template: str, content: Mapping[str, Any], *, status: int = HTTPStatus.OK) -> HTMLResponse:
        """Return a page."""
        html = self._templates.get_template(template).render(content)
        return HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)


def _when(rfc3339: str, zone: str = "UTC") -> Markup:
    """Return a time as people of a zone read it, to the minute."""
    return _time(rfc3339, zone, f"{_local(rfc3339, zone):%Y-%m-%d %H:%M}")


def _day(rfc3339: str, zone: str = "UTC") -> Markup:
    """Return the date that a time has in a zone."""
    return _time(rfc3339, zone, f"{_local(rfc3339, zone):%Y-%m-%d}")


def _time(rfc3339: str, zone: str, shown: str) -> Markup:
    title = f"{_local(rfc3339, zone):%Y-%m-%d %H:%M:%S} {zone}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(rfc3339, title, shown)


def _local(rfc3339: str, zone: str) -> datetime:
    return datetime.fromisoformat(rfc3339).astimezone(ZoneInfo(zone))


def _grouped(number: str) -> str:
    """Return a decimal string with its thousands apart."""
    sign = "-" if number.startswith("-") else ""
    whole, point, fraction = number.removeprefix("-").partition(".")
    return f"{sign}{int(whole):,}{point}{fraction}" if whole.isdecimal() else number
