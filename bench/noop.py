"""A server that answers IngestEvents and CheckLimit and does nothing, with the real one's settings and interceptors."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import grpc

from meterscope.usage.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
)
from services.kit import telemetry
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read
from services.usage.settings import Settings


class Events(event_service_pb2_grpc.EventServiceServicer):
    """Accepts everything and keeps nothing."""

    def IngestEvents(  # noqa: N802 - generated
        self,
        request: event_service_pb2.IngestEventsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - generated
    ) -> event_service_pb2.IngestEventsResponse:
        """Answer."""
        return event_service_pb2.IngestEventsResponse(accepted=len(request.events))


class Limits(limit_service_pb2_grpc.LimitServiceServicer):
    """Allows everything and looks nothing up."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self._answer = limit_service_pb2.CheckLimitResponse(
            allowed=True,
            used={"value": "1"},
            limit={"value": "1000000000000"},
            remaining={"value": "999999999999"},
            reset_time=now,
            kind=limit_service_pb2.LIMIT_KIND_SOFT,
            answered_from=limit_service_pb2.ANSWERED_FROM_LIVE,
            as_of=now,
            meter="requests",
            reserved={"value": "0"},
        )

    def CheckLimit(  # noqa: N802 - generated
        self,
        request: limit_service_pb2.CheckLimitRequest,  # noqa: ARG002 - generated
        context: grpc.ServicerContext,  # noqa: ARG002 - generated
    ) -> limit_service_pb2.CheckLimitResponse:
        """Answer."""
        return self._answer


def main() -> None:
    """Serve until a signal."""
    settings = read(KitSettings, os.environ)
    telemetry.setup("noop", settings, role="server")

    def register(target: grpc.Server) -> None:
        event_service_pb2_grpc.add_EventServiceServicer_to_server(Events(), target)
        limit_service_pb2_grpc.add_LimitServiceServicer_to_server(Limits(), target)

    # As many calls at a time as a usage server takes.
    settings = replace(settings, grpc_threads=Settings.calls)
    server = Server(os.environ["NOOP_ADDRESS"], register, service_names=[], settings=settings)
    server.serve_until_signal()


if __name__ == "__main__":
    main()
