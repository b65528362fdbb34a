"""A server that answers IngestEvents and does nothing, with the same settings and interceptors as the real one."""

import os

import grpc

from meterscope.usage.v1 import event_service_pb2, event_service_pb2_grpc
from services.kit import telemetry
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read


class Noop(event_service_pb2_grpc.EventServiceServicer):
    """Accepts everything and keeps nothing."""

    def IngestEvents(  # noqa: N802 - generated
        self,
        request: event_service_pb2.IngestEventsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - generated
    ) -> event_service_pb2.IngestEventsResponse:
        """Answer."""
        return event_service_pb2.IngestEventsResponse(accepted=len(request.events))


def main() -> None:
    """Serve until a signal."""
    settings = read(KitSettings, os.environ)
    telemetry.setup("noop", settings, role="server")
    server = Server(
        os.environ["NOOP_ADDRESS"],
        lambda target: event_service_pb2_grpc.add_EventServiceServicer_to_server(Noop(), target),
        service_names=[],
        settings=settings,
    )
    server.serve_until_signal()


if __name__ == "__main__":
    main()
