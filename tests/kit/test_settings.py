from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from services.kit.config import KitSettings
from services.kit.settings import SettingsError, read, variable


@dataclass(frozen=True)
class Inner:
    threads: int = variable("THREADS", default=4, minimum=1, help="how many threads")


@dataclass(frozen=True)
class Settings:
    inner: Inner
    url: str = variable("OWN_URL", "URL", help="where the database is", secret=True)
    wait: timedelta = variable("WAIT", default=timedelta(seconds=1), help="how long to wait")
    folder: Path | None = variable("FOLDER", default=None, help="where files go")
    factor: Decimal = variable("FACTOR", default=Decimal(2), help="a factor")
    quiet: bool = variable("QUIET", default=False, help="say less")
    names: tuple[str, ...] = variable("NAMES", default=(), help="who")


def test_variables_are_read_into_their_types() -> None:
    environ = {
        "URL": "postgresql://h/d",
        "WAIT": "2.5",
        "FOLDER": "x/y",
        "FACTOR": "1.5",
        "QUIET": "yes",
        "NAMES": "a, b",
        "THREADS": "8",
    }
    settings = read(Settings, environ)
    assert settings == Settings(
        Inner(8), "postgresql://h/d", timedelta(seconds=2.5), Path("x/y"), Decimal("1.5"), quiet=True, names=("a", "b")
    )


def test_a_services_own_variable_goes_before_the_shared_one() -> None:
    assert read(Settings, {"URL": "shared", "OWN_URL": "own"}).url == "own"


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read(Settings, {"THREADS": "0", "WAIT": "soon", "QUIET": "maybe", "FACTOR": "x"})
    text = str(refused.value)
    assert "OWN_URL (or URL) is not set: where the database is" in text
    assert "THREADS '0' is below the least value, 1" in text
    assert "WAIT 'soon' is not a number of seconds" in text
    assert "QUIET 'maybe' is neither true nor false" in text
    assert "FACTOR 'x' is not a decimal number" in text


def test_a_url_of_something_else_is_refused_without_showing_it() -> None:
    @dataclass(frozen=True)
    class Stored:
        url: str = variable("URL", secret=True, schemes=("postgresql", "postgres"), help="where the database is")

    assert read(Stored, {"URL": "postgres://h/d"}).url == "postgres://h/d"
    with pytest.raises(SettingsError, match=r"^URL is not a postgresql:// URL: where the database is$"):
        read(Stored, {"URL": "mysql://u:hunter2@h/d"})


def test_a_value_that_is_not_offered_is_refused() -> None:
    with pytest.raises(SettingsError, match="LOG_LEVEL 'LOUD' is not one of DEBUG, INFO, WARNING, ERROR"):
        read(KitSettings, {"LOG_LEVEL": "LOUD"})


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read(Settings, {"URL": "u", "WAIT": ""}).wait == timedelta(seconds=1)


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(read(Settings, {"URL": "postgresql://u:hunter2@h/d"}))
