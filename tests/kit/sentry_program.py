"""Processes for the tests of Sentry: each fails in its ways, says on standard output what it saw, and ends."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import grpc
import httpx
from opentelemetry import propagate, trace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import app
from gateway.settings import Settings
from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc as rpc
from services.kit import logs, settings, telemetry
from services.kit.config import KitSettings
from services.kit.db import Database
from services.kit.outbox import Job, Jobs
from services.kit.server import Server
from services.kit.worker import Worker

# What must not get out; the card is a published test number. Named here, since source lines around an error are sent.
WORD = "hunter2"
NICKNAME = "visa-ending-in-42"
CARD = "4242424242424242"
MAIL = "person@example.org"
METHOD = "pm_1NirD82eZvKYlo2CIvbtLWuY"
KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
# As callers would send them: traceparents of sampled traces.
CALL = f"00-{'c' * 32}-{'1' * 16}-01"
REQUEST = f"00-{'d' * 32}-{'2' * 16}-01"

_log = logging.getLogger("tests")


def fail(what: str) -> None:
    """Fail unforeseen, with secrets in every place that Sentry looks into."""
    api_key, text = WORD, f"{CARD} of {MAIL}"
    details = {"email": MAIL, "payment_method": NICKNAME, "nested": [{"token": WORD}]}
    _log.info("about to fail for %s", MAIL, extra={"authorization": WORD, "with": METHOD})
    raise RuntimeError(f"{what}: {len(api_key)} {text} {METHOD} {KEY} {len(details)}")


class Events(rpc.EventServiceServicer):
    """One method, which fails."""

    def GetEvent(self, request: pb.GetEventRequest, context: grpc.ServicerContext) -> pb.Event:
        busy_until = time.perf_counter() + 0.1  # long enough for the profiler's samples
        while time.perf_counter() < busy_until:
            pass
        fail("servicer")
        return pb.Event()


class Breaking:
    """A loop of the worker that fails, then waits."""

    name = "breaking"

    def __init__(self) -> None:
        self._failed = False

    def run(self, stop: threading.Event) -> None:
        if not self._failed:
            self._failed = True
            fail("loop")
        stop.wait()


def serve(kit: KitSettings) -> None:
    server = Server(
        "127.0.0.1:0",
        lambda target: rpc.add_EventServiceServicer_to_server(Events(), target),
        service_names=["meterscope.usage.v1.EventService"],
        settings=kit,
    )
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        for _ in range(int(os.environ.get("CALLS", "1"))):
            try:
                metadata = [("traceparent", CALL), ("baggage", "customer_id=cus_1")]
                rpc.EventServiceStub(channel).GetEvent(pb.GetEventRequest(), metadata=metadata)
            except grpc.RpcError as error:
                # In one piece: log lines of other threads go the same way.
                print(f"answered {error.code().name}\n", end="", flush=True)
    server.stop()


def run_thread(_kit: KitSettings) -> None:
    def work() -> None:
        with trace.get_tracer("tests").start_as_current_span("thread") as span:
            print("thread", trace.format_trace_id(span.get_span_context().trace_id))
            fail("thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def request(kit: KitSettings) -> None:
    built = app.build(Settings(kit=kit))

    async def broken(_request: Request) -> Response:
        fail("gateway")
        return Response()

    async def careless(_request: Request) -> Response:
        async def later() -> None:
            fail("task")

        task = asyncio.get_running_loop().create_task(later())
        await asyncio.wait([task])
        return Response()

    built.router.routes[:0] = [Route("/broken", broken), Route("/careless", careless)]

    async def ask() -> None:
        async with built.router.lifespan_context(built) as state:
            transport = httpx.ASGITransport(_with_state(built, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                headers = {"traceparent": REQUEST, "authorization": f"Bearer {WORD}{WORD}"}
                for path in ("/broken", "/careless"):
                    answer = await client.get(path, params={"token": WORD}, headers=headers)
                    print("answered", answer.status_code)
        gc.collect()

    asyncio.run(ask())


def _with_state(built: Callable[..., object], state: object) -> Callable[..., object]:
    def call(scope: dict[str, object], receive: object, send: object) -> object:
        return built({**scope, "state": state}, receive, send)

    return call


def work(kit: KitSettings) -> None:
    url, schema, redis_url = sys.argv[2:]
    done = threading.Event()

    def job(_job: Job) -> None:
        done.set()
        fail("job")

    jobs = Jobs()
    jobs.register("work", job, max_attempts=1)
    database = Database(url, schema=schema, service=schema, role="worker")
    worker = Worker(
        service=schema,
        database=database,
        redis_url=redis_url,
        jobs=jobs,
        settings=replace(kit, worker_threads=2),
        address="127.0.0.1:0",
        loops=[Breaking()],
    )
    worker.start()
    assert done.wait(60)
    worker.stop()


def crash(_kit: KitSettings) -> None:
    fail("interpreter")


SCENARIOS = {
    "serve": ("usage", "server", serve),
    "thread": ("usage", "server", run_thread),
    "request": ("gateway", "gateway", request),
    "work": ("usage", "worker", work),
    "crash": ("usage", "server", crash),
    "nothing": ("usage", "server", lambda _kit: None),
}


def main() -> None:
    service, role, act = SCENARIOS[sys.argv[1]]
    kit = settings.read(KitSettings, os.environ)
    running = telemetry.setup(service, kit, role=role)
    try:
        act(kit)
    except RuntimeError as error:
        logs.uncaught(error, "interpreter", "uncaught exception")
        raise
    finally:
        running.shutdown()
    print("propagates", *sorted(propagate.get_global_textmap().fields))
    if "sentry_sdk" in sys.modules:
        options = sys.modules["sentry_sdk"].get_client().options
        print("rates", options["traces_sample_rate"], options["profiles_sample_rate"])
    else:
        print("never imported")


if __name__ == "__main__":
    main()
