"""Keeps web pages of other sites away while the gateway is open on loopback.

A browser on this machine can reach the gateway for any page that it shows. Two checks stop such pages: the Host must
name this machine (a page that rebinds its own name to 127.0.0.1 still sends that name), and a request that changes
something must come from the gateway's own pages, or from a program.
"""

from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import problem
from gateway.errors import Refusal
from services.kit.server import is_loopback

_SAFE: Final = {"GET", "HEAD", "OPTIONS"}
_OWN_SITE: Final = {"same-origin", "none"}


class Guarded:
    """ASGI middleware that answers such requests with a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass or refuse it."""
        if scope["type"] == "http":
            try:
                _check(scope["method"], Headers(scope=scope))
            except Refusal as refusal:
                answer = problem.from_refusal(refusal).response(scope["path"])
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _check(method: str, headers: Headers) -> None:
    host = headers.get("host", "")
    if not _is_local(host):
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "HOST_NOT_LOCAL",
            f"the Host header is {host[:128]!r}: without API keys only localhost, 127.0.0.1 and [::1] are answered",
        )
    if method in _SAFE:
        return
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if (origin is not None and origin not in {f"http://{host}", f"https://{host}"}) or site not in _OWN_SITE:
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "CROSS_SITE_REQUEST",
            f"a page of {(origin or 'another site')[:128]!r} asked for a change: "
            "only the gateway's own pages and programs outside a browser may",
        )


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and "@" not in host and is_loopback(name)
