"""The ASGI application: pages and health by name, everything else by the contract."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypedDict

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway import comments, contract, docs, openapi, problem
from gateway.backends import Backends
from gateway.cloudevents.endpoint import CloudEvents
from gateway.components import Components
from gateway.dashboard import Dashboard
from gateway.errors import Refusal
from gateway.exposition import Exposition
from gateway.guard import Guarded
from gateway.health import Health
from gateway.observation import Observed
from gateway.page import Pages
from gateway.rest import Rest
from gateway.settings import Settings
from services.kit import logs


class State(TypedDict):
    """What every request finds in its state."""

    backends: Backends


def build(settings: Settings) -> Starlette:
    """Build the gateway.

    Raises:
        ContractError: an annotation of the contract cannot be served.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        logs.watch(asyncio.get_running_loop())
        backends = Backends(settings)
        watching = asyncio.create_task(Components(backends).run())
        yield {"backends": backends}
        watching.cancel()
        await backends.close()

    served = contract.load()
    app = Starlette(
        routes=_pages(served, settings),
        middleware=[Middleware(Observed), Middleware(Guarded)],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = Rest(served, stream_idle=settings.kit.stream_idle)
    return app


def _pages(served: contract.Contract, settings: Settings) -> list[Route]:
    pages = Pages()
    document = openapi.build(served, comments.load(), settings.kit.version)
    described = orjson.dumps(document)
    documentation = docs.page(document, pages)
    health = Health(settings.kit)
    dashboard = Dashboard(served, pages)
    exposition = Exposition(served)

    async def openapi_document(_request: Request) -> Response:
        return Response(described, media_type="application/json")

    async def docs_page(_request: Request) -> Response:
        return documentation

    async def home(_request: Request) -> Response:
        return RedirectResponse("/billing")

    return [
        Route("/", home),
        Route("/health", health.details),
        Route("/health/ready", health.ready),
        Route("/health/live", health.live),
        Route("/metrics", exposition.metrics),
        Route("/metrics/json", exposition.json),
        Route("/api/metrics/billing", exposition.billing),
        Route("/openapi.json", openapi_document),
        Route("/docs", docs_page),
        Route("/v1/events", CloudEvents(served).ingest, methods=["POST"]),
        Route("/billing", dashboard.overview),
        Route("/billing/invoices/{invoice_id}/lines/{line_id}", dashboard.explanation),
    ]


def _refused(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: a page that is asked with a method that it does not have."""
    if not isinstance(error, HTTPException):
        raise error
    allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
    refusal = Refusal(
        HTTPStatus(error.status_code),
        "METHOD_NOT_ALLOWED",
        f"{request.method} is not allowed here; use {allowed}",
        headers={"allow": allowed},
    )
    return problem.from_refusal(refusal).response(request.scope["path"])
