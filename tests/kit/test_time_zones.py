"""Which names are those of time zones."""

import pytest

from services.kit.time_zones import is_time_zone


@pytest.mark.parametrize("name", ["UTC", "Asia/Kolkata", "America/Argentina/Ushuaia", "Etc/GMT+5", "GB"])
def test_iana_names_are_time_zones(name: str) -> None:
    assert is_time_zone(name)


@pytest.mark.parametrize(
    "name",
    [
        # Files of the database whose time is this machine's, or nobody's.
        *("localtime", "posixrules", "Factory"),
        # The same zones again, the second time with leap seconds, and a list of zones.
        *("posix/Europe/Berlin", "right/UTC", "zone.tab"),
        *("", "Mars/Olympus", "asia/kolkata", "+05:30", "../../etc/localtime", "/etc/localtime", "UTC\0", "Europe"),
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert not is_time_zone(name)
