"""Path templates of `google.api.http`: literals, `{field}` for one segment, and a custom verb behind a colon."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

_SEGMENT: Final = re.compile(r"\{(?P<variable>\w+)\}|(?P<literal>[\w.~-]+)")


class TemplateError(ValueError):
    """The template is none that can be matched."""


@dataclass(frozen=True)
class PathTemplate:
    """A parsed template.

    Attributes:
        text: as it is written, `/v1/invoices/{invoice_id}:render`.
        variables: the fields that it fills, in order.
        verb: the custom verb, `render`; empty without one.
    """

    text: str
    variables: tuple[str, ...]
    verb: str
    pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> "PathTemplate":
        """Parse a template.

        Raises:
            TemplateError: not of the supported form.
        """
        path, _, verb = text.partition(":")
        variables: list[str] = []
        pattern = ""
        for segment in path.removeprefix("/").split("/"):
            match = _SEGMENT.fullmatch(segment)
            if match is None or not path.startswith("/"):
                raise TemplateError(f"{text}: {segment!r} is neither a literal nor a {{field}}")
            if match["variable"]:
                variables.append(match["variable"])
                pattern += "/([^/]+)"
            else:
                pattern += "/" + re.escape(segment)
        if verb:
            pattern += ":" + re.escape(verb)
        return cls(text, tuple(variables), verb, re.compile(pattern))

    @property
    def shape(self) -> str:
        """The template without the names of its variables: two with the same shape match the same paths."""
        return self.pattern.pattern

    @property
    def rank(self) -> tuple[bool, int]:
        """Sorts the more particular template first: a custom verb before none, fewer variables before more."""
        return (not self.verb, len(self.variables))

    def match(self, raw_path: str) -> dict[str, bytes] | None:
        """Return the variables' values as bytes, percent-decoded; None if the path is another one.

        Args:
            raw_path: the path as it was sent: `%2F` and `%3A` do not separate segments or verbs.
        """
        match = self.pattern.fullmatch(raw_path)
        if match is None:
            return None
        return {name: unquote_to_bytes(value) for name, value in zip(self.variables, match.groups(), strict=True)}
