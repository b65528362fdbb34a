"""Doubles of the four services, for the gateway's tests: real gRPC servers of the kit that record what they are asked.

A method answers an empty message unless a test says otherwise.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read

NAMES = ("usage", "billing", "payments", "alerts")


@dataclass(frozen=True)
class Call:
    """A call that a service got. Of a method that takes a stream, `request` is the list of its requests."""

    method: str
    request: Any
    metadata: dict[str, str]


class ServiceDouble:
    """One service: all gRPC services of its package on one port."""

    def __init__(self, name: str) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, Message | Exception] = {}
        self.is_healthy = True
        self._services = dict(_services(name))
        self._server = Server(
            "127.0.0.1:0",
            self._register,
            service_names=[descriptor.full_name for descriptor in self._services],
            settings=read(KitSettings, {"METERSCOPE_GRACE_SECONDS": "0"}),
        )

    @property
    def address(self) -> str:
        return self._server.address

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def reset(self) -> None:
        self.calls.clear()
        self.answers.clear()

    def answer(self, method: str, answer: Message | Exception) -> None:
        """Let a method, such as `GetCustomer`, answer or raise this."""
        self.answers[method] = answer

    @property
    def last(self) -> Call:
        return self.calls[-1]

    def _register(self, server: grpc.Server) -> None:
        for descriptor, stubs in self._services.items():
            methods = {method.name: self._behaviour(method) for method in descriptor.methods}
            base = getattr(stubs, f"{descriptor.name}Servicer")
            servicer = type(descriptor.name, (base,), methods)()
            getattr(stubs, f"add_{descriptor.name}Servicer_to_server")(servicer, server)

    def _behaviour(self, method: MethodDescriptor) -> Callable[..., Any]:
        empty = message_factory.GetMessageClass(method.output_type)

        def behave(_self: object, request: Any, context: grpc.ServicerContext) -> Any:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            if method.client_streaming and not isinstance(self.answers.get(method.name), Exception):
                request = list(request)
            self.calls.append(Call(method.name, request, metadata))
            answer = self.answers.get(method.name, empty())
            if isinstance(answer, Exception):
                raise answer
            return iter([answer]) if method.server_streaming else answer

        return behave


def _services(name: str) -> Iterator[tuple[ServiceDescriptor, ModuleType]]:
    package = importlib.import_module(f"meterscope.{name}.v1")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_pb2"):
            for descriptor in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield descriptor, importlib.import_module(f"{module.name}_grpc")
