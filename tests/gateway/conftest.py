from collections.abc import Iterator

import httpx
import pytest
from running_gateway import running
from service_doubles import NAMES, ServiceDouble

from gateway.settings import Settings
from services.kit.settings import read

HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def doubles() -> Iterator[dict[str, ServiceDouble]]:
    """The four services as the edge of the process: real gRPC servers that record calls."""
    found = {name: ServiceDouble(name) for name in NAMES}
    for double in found.values():
        double.start()
    yield found
    for double in found.values():
        double.stop()


@pytest.fixture(autouse=True)
def services(doubles: dict[str, ServiceDouble]) -> dict[str, ServiceDouble]:
    """The services without memory of other tests."""
    for double in doubles.values():
        double.reset()
    return doubles


@pytest.fixture(scope="session")
def settings(doubles: dict[str, ServiceDouble]) -> Settings:
    addresses = {f"METERSCOPE_{name.upper()}_ADDRESS": double.address for name, double in doubles.items()}
    return read(
        Settings,
        {
            "METERSCOPE_GATEWAY_ADDRESS": f"{HOST}:0",
            "METERSCOPE_GATEWAY_DEADLINE_SECONDS": "5",
            "METERSCOPE_ENVIRONMENT": "test",
            "METERSCOPE_GRACE_SECONDS": "2",
            **addresses,
        },
    )


@pytest.fixture(scope="session")
def gateway(settings: Settings) -> Iterator[str]:
    """The base URL of a gateway in front of the services."""
    with running(settings) as url:
        yield url


@pytest.fixture(scope="session")
def away() -> Iterator[str]:
    """The base URL of a gateway that can reach no service at all."""
    # Nothing listens on port 1 of a test machine.
    nowhere = {f"METERSCOPE_{name.upper()}_ADDRESS": f"{HOST}:1" for name in NAMES}
    with running(read(Settings, {"METERSCOPE_GATEWAY_ADDRESS": f"{HOST}:0", **nowhere})) as url:
        yield url


@pytest.fixture
def client(gateway: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway) as http:
        yield http
