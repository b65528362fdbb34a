from collections.abc import Iterator

import pytest

from tests.e2e.running import Running, start, stop


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("up") / "data")
    yield running
    assert stop(running) == 0
