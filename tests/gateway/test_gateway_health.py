import re
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
from running_gateway import running
from service_doubles import NAMES, ServiceDouble

from gateway.settings import Settings
from services.kit.settings import read


def test_health_tells_of_every_service(client: httpx.Client) -> None:
    answer = client.get("/health")
    health = answer.json()
    assert (answer.status_code, health["status"], health["environment"]) == (200, "ok", "test")
    assert {name: service["status"] for name, service in health["services"].items()} == dict.fromkeys(NAMES, "SERVING")
    assert health["uptime_seconds"] >= 0
    assert re.fullmatch(r"\d+\.\d+.*", health["version"])
    assert datetime.fromisoformat(health["as_of"]) <= datetime.fromisoformat(health["timestamp"])


def test_good_news_is_kept_for_a_while(client: httpx.Client) -> None:
    assert client.get("/health").json()["as_of"] == client.get("/health").json()["as_of"]


def test_ready_when_every_service_serves(client: httpx.Client) -> None:
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"], answer.json()["waiting_for"]) == (200, "ready", [])


def test_alive_even_when_nothing_else_is(away: str) -> None:
    assert httpx.get(f"{away}/health/live").json() == {"status": "alive"}


def test_degraded_when_services_are_away(away: str) -> None:
    health = httpx.get(f"{away}/health", timeout=30)
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert {service["status"] for service in health.json()["services"].values()} == {"UNREACHABLE"}
    ready = httpx.get(f"{away}/health/ready", timeout=30)
    assert (ready.status_code, ready.json()["waiting_for"]) == (503, list(NAMES))


@pytest.fixture
def mortal(settings: Settings, doubles: dict[str, ServiceDouble]) -> Iterator[tuple[str, ServiceDouble]]:
    """A gateway whose alerts service can be stopped."""
    alerts = ServiceDouble("alerts")
    alerts.start()
    addresses = {f"METERSCOPE_{name.upper()}_ADDRESS": double.address for name, double in doubles.items()}
    addresses["METERSCOPE_ALERTS_ADDRESS"] = alerts.address
    with running(read(Settings, {"METERSCOPE_GATEWAY_ADDRESS": settings.address, **addresses})) as url:
        yield url, alerts
    alerts.stop()


def test_a_service_that_stops_is_waited_for(mortal: tuple[str, ServiceDouble]) -> None:
    url, alerts = mortal
    with httpx.Client(base_url=url) as http:
        assert http.get("/health/ready").status_code == 200
        alerts.stop()
        deadline = 100
        while (answer := http.get("/health/ready")).status_code == 200 and deadline:
            deadline -= 1
            http.get("/v1/alerts")
        assert answer.json()["waiting_for"] == ["alerts"]
        page = http.get("/billing", timeout=30)
        assert page.status_code == 200
        assert "The alerts service is away." in page.text
