"""The contract's comments, read from the described contract (`make proto` writes it): generated stubs do not carry them at run time."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

_IMAGE = "contract.binpb"
_Path = tuple[int, ...]


def load() -> Mapping[str, str]:
    """Return the comment above each service, method, message, field, enum and enum value, by full name."""
    image = FileDescriptorSet.FromString(resources.files("gateway").joinpath(_IMAGE).read_bytes())
    found: dict[str, str] = {}
    for file in image.file:
        texts = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for path, name in _names(file):
            text = texts.get(path, "")
            found[name] = "\n".join(line.strip() for line in text.strip().splitlines())
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """Walk a file: the path of each declaration (in descriptor.proto's field numbers) and its full name."""
    yield from _messages((FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER,), file.message_type, file.package)
    yield from _enums((FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER,), file.enum_type, file.package)
    for index, service in enumerate(file.service):
        path = (FileDescriptorProto.SERVICE_FIELD_NUMBER, index)
        name = f"{file.package}.{service.name}"
        yield path, name
        for number, method in enumerate(service.method):
            yield (*path, 2, number), f"{name}.{method.name}"


def _messages(base: _Path, messages: Iterable[DescriptorProto], scope: str) -> Iterator[tuple[_Path, str]]:
    for index, message in enumerate(messages):
        path, name = (*base, index), f"{scope}.{message.name}"
        yield path, name
        for number, field in enumerate(message.field):
            yield (*path, DescriptorProto.FIELD_FIELD_NUMBER, number), f"{name}.{field.name}"
        yield from _messages((*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER), message.nested_type, name)
        yield from _enums((*path, DescriptorProto.ENUM_TYPE_FIELD_NUMBER), message.enum_type, name)


def _enums(base: _Path, enums: Iterable[EnumDescriptorProto], scope: str) -> Iterator[tuple[_Path, str]]:
    for index, enum in enumerate(enums):
        path = (*base, index)
        yield path, f"{scope}.{enum.name}"
        for number, value in enumerate(enum.value):
            # Values live beside their enum in proto's naming; below it they cannot collide.
            yield (*path, EnumDescriptorProto.VALUE_FIELD_NUMBER, number), f"{scope}.{enum.name}.{value.name}"
