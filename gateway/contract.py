"""The contract as the gateway reads it: every method of the four services, and the HTTP bindings of the annotated ones.

Nothing about a route is written here: a method that gains an annotation in its proto gains its route.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from gateway.path_template import PathTemplate

PACKAGES: Final = {
    "usage": "meterscope.usage.v1",
    "billing": "meterscope.billing.v1",
    "payments": "meterscope.payments.v1",
    "alerts": "meterscope.alerts.v1",
}
_VERBS: Final = ("get", "put", "post", "delete", "patch")


class ContractError(Exception):
    """An annotation asks for what the gateway cannot do. Found at start, so that it never surprises a caller."""


@dataclass(frozen=True)
class Method:
    """A method of a service: `service` is the process that answers it, such as `billing`."""

    service: str
    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        """The path of the gRPC call: `/meterscope.billing.v1.CustomerService/GetCustomer`."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> type[Message]:
        """The class of its requests."""
        return _class_of(self.descriptor.input_type)

    @property
    def response(self) -> type[Message]:
        """The class of its answers."""
        return _class_of(self.descriptor.output_type)


@dataclass(frozen=True)
class Binding:
    """One way to call a method by HTTP.

    Attributes:
        method: the method.
        verb: `GET`, `POST`, …
        template: the path.
        body: the field of the request that the HTTP body fills; `*` for the request itself, empty for no body.
            Of a method that takes a stream, the bytes field that each message carries a part of the body in.
    """

    method: Method
    verb: str
    template: PathTemplate
    body: str

    @property
    def body_type(self) -> Descriptor | None:
        """What the HTTP body holds; None for no body."""
        request = self.method.descriptor.input_type
        if self.body in {"", "*"}:
            return request if self.body else None
        return request.fields_by_name[self.body].message_type

    @property
    def is_stream(self) -> bool:
        """Whether the body is passed on part by part as it comes, whatever its size."""
        return self.method.descriptor.client_streaming

    @property
    def takes_request_id(self) -> bool:
        """Whether `Idempotency-Key` means something: the request has a `request_id`."""
        return "request_id" in self.method.descriptor.input_type.fields_by_name


@dataclass(frozen=True)
class Contract:
    """All methods by full name (`meterscope.billing.v1.CustomerService.GetCustomer`) and all bindings."""

    methods: Mapping[str, Method]
    bindings: tuple[Binding, ...]


def load() -> Contract:
    """Read the contract off the generated stubs.

    Raises:
        ContractError: an annotation that cannot be served, or two that claim the same route.
    """
    methods = {method.descriptor.full_name: method for method in _methods()}
    bindings = tuple(binding for method in methods.values() for binding in _bindings(method))
    seen: dict[tuple[str, str], str] = {}
    for binding in bindings:
        name = binding.method.descriptor.full_name
        other = seen.setdefault((binding.verb, binding.template.shape), name)
        if other != name:
            raise ContractError(f"{name} and {other} both claim {binding.verb} {binding.template.text}")
    return Contract(methods, bindings)


def _methods() -> Iterator[Method]:
    for service, package in PACKAGES.items():
        folder = importlib.import_module(package).__path__
        for module in pkgutil.iter_modules(folder, f"{package}."):
            if module.name.endswith("_pb2"):
                file = importlib.import_module(module.name).DESCRIPTOR
                for declared in file.services_by_name.values():
                    yield from (Method(service, descriptor) for descriptor in declared.methods)


def _bindings(method: Method) -> Iterator[Binding]:
    options = method.descriptor.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule = options.Extensions[annotations_pb2.http]
    if method.descriptor.server_streaming:
        raise ContractError(f"{method.descriptor.full_name} answers a stream: it cannot be called by REST")
    rules: Iterable[http_pb2.HttpRule] = (rule, *rule.additional_bindings)
    for each in rules:
        yield _binding(method, each)


def _binding(method: Method, rule: http_pb2.HttpRule) -> Binding:
    name = method.descriptor.full_name
    kind = rule.WhichOneof("pattern")
    if kind not in _VERBS or rule.response_body:
        raise ContractError(f"{name}: only {', '.join(_VERBS)} with the whole answer can be served")
    request = method.descriptor.input_type
    template = PathTemplate.parse(getattr(rule, kind))
    for variable in template.variables:
        target = request.fields_by_name.get(variable)
        if target is None or target.message_type is not None or target.is_repeated:
            raise ContractError(f"{name}: the path names {variable}, which is no scalar field of {request.full_name}")
    if method.descriptor.client_streaming:
        chunk = request.fields_by_name.get(rule.body)
        if chunk is None or chunk.type != FieldDescriptor.TYPE_BYTES or chunk.is_repeated or template.variables:
            raise ContractError(f"{name} takes a stream: its body must be a bytes field and its path plain")
    elif rule.body not in {"", "*"}:
        field = request.fields_by_name.get(rule.body)
        if field is None or field.message_type is None or field.is_repeated:
            raise ContractError(f"{name}: the body {rule.body} is no message field of {request.full_name}")
    return Binding(method, kind.upper(), template, rule.body)


@cache
def _class_of(descriptor: Descriptor) -> type[Message]:
    return message_factory.GetMessageClass(descriptor)
