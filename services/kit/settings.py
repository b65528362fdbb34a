"""Settings: a frozen dataclass whose fields name their environment variables, read once at the edge.

    @dataclass(frozen=True)
    class Settings:
        database_url: str = variable("USAGE_DATABASE_URL", "DATABASE_URL", help="PostgreSQL of the usage service")
        threads: int = variable("USAGE_THREADS", default=16, minimum=1, help="gRPC handler threads")

    settings = read(Settings, os.environ)

Every problem is named in one error: a user mends them all at once.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_MISSING: Any = dataclasses.MISSING
# What a database and a broker may be named by; `variable` takes them as `schemes`.
POSTGRESQL = ("postgresql", "postgres")
REDIS = ("redis", "rediss", "unix")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class SettingsError(Exception):
    """Some variables are missing or malformed. The message has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Variable:
    """How a field is read: the first of `names` that is set and not empty counts."""

    names: tuple[str, ...]
    help: str
    minimum: float | None = None
    secret: bool = False
    schemes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    check: Callable[[Any], object] | None = None


def variable(
    *names: str,
    help: str,  # noqa: A002 - the word users know from argparse
    default: Any = _MISSING,
    minimum: float | None = None,
    secret: bool = False,
    schemes: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    check: Callable[[Any], object] | None = None,
) -> Any:
    """Declare a field by its variables. Without a default the variable must be set.

    Args:
        names: environment variables; the first one that is set and not empty counts.
        help: what it is for; `.env.example` and errors show it.
        default: the value when none is set.
        minimum: the least number allowed.
        secret: never printed.
        schemes: of a URL, such as `POSTGRESQL`; any text without.
        choices: the only values allowed.
        check: is given the value, and raises ValueError with what is wrong with it (`is not …`).
    """
    return dataclasses.field(
        default=default,
        metadata={"variable": Variable(names, help, minimum, secret, schemes, choices, check)},
        repr=not secret,
    )


def variables(cls: type[Any]) -> dict[str, Variable]:
    """Return the declared variables of a settings class, nested ones included, by field name."""
    found: dict[str, Variable] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "variable" in field.metadata:
            found[field.name] = field.metadata["variable"]
        elif dataclasses.is_dataclass(hints[field.name]):
            found.update(variables(typing.cast("type[Any]", hints[field.name])))
    return found


def read(cls: type[T], environ: Mapping[str, str]) -> T:
    """Build `cls` from the environment. Nested settings dataclasses are read likewise.

    Raises:
        SettingsError: a line per variable that is missing or malformed.
    """
    problems: list[str] = []
    value = _read(cls, environ, problems)
    if problems:
        raise SettingsError(problems)
    return value


def _read(cls: type[T], environ: Mapping[str, str], problems: list[str]) -> T:
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(typing.cast("Any", cls)):
        kind = hints[field.name]
        spec: Variable | None = field.metadata.get("variable")
        if spec is None:
            if dataclasses.is_dataclass(kind):
                values[field.name] = _read(typing.cast("type[Any]", kind), environ, problems)
            continue
        name = next((name for name in spec.names if environ.get(name, "") != ""), None)
        if name is None:
            if field.default is dataclasses.MISSING:
                problems.append(f"{' (or '.join(spec.names)}{')' * (len(spec.names) - 1)} is not set: {spec.help}")
            continue
        try:
            values[field.name] = _parse(kind, environ[name], spec)
        except ValueError as error:
            shown = "" if spec.secret else f" {environ[name]!r}"
            problems.append(f"{name}{shown} {error}: {spec.help}")
    return typing.cast("T", None) if problems else cls(**values)


def _parse(kind: Any, text: str, spec: Variable) -> Any:
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    value = _PARSERS[kind](text) if kind in _PARSERS else _PARSERS[typing.get_origin(kind)](text)
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if spec.minimum is not None and number < spec.minimum:
        raise ValueError(f"is below the least value, {spec.minimum:g}")
    if spec.schemes and not text.startswith(tuple(f"{scheme}://" for scheme in spec.schemes)):
        raise ValueError(f"is not a {spec.schemes[0]}:// URL")
    if spec.choices and text not in spec.choices:
        raise ValueError(f"is not one of {', '.join(spec.choices)}")
    if spec.check is not None:
        spec.check(value)
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("is not a whole number") from None


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number") from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("is not a decimal number") from None


def _switch(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("is neither true nor false")


def _seconds(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise ValueError("is not a number of seconds") from None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: _whole,
    float: _fraction,
    Decimal: _decimal,
    bool: _switch,
    timedelta: _seconds,
    Path: Path,
    tuple: _list,
}
