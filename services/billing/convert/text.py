"""Text that can be kept: PostgreSQL takes every character but NUL."""

from google.protobuf.message import Message

from services.kit.errors import InvalidArgument


def refuse_nul(request: Message, path: str = "") -> None:
    """Refuse a request with text that cannot be kept.

    Raises:
        InvalidArgument: a text of it, or of a message in it, holds a NUL; names the field.
    """
    for field, value in request.ListFields():
        values = value if field.is_repeated else [value]
        for index, part in enumerate(values):
            here = f"{path}{field.name}" + (f"[{index}]" if field.is_repeated else "")
            if isinstance(part, Message):
                refuse_nul(part, f"{here}.")
            elif isinstance(part, str) and "\0" in part:
                raise InvalidArgument.at(here, "holds a NUL character; leave it out")
