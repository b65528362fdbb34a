import socket
from urllib.parse import urlsplit

import httpx
import pytest
from service_doubles import ServiceDouble


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:9", "127.5.5.5", "[::1]:8080", "LOCALHOST"])
def test_a_host_that_is_this_machine_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "10.0.0.1", "localhost@x", "[::1", ""],
)
def test_a_host_that_is_rebound_is_refused(client: httpx.Client, host: str) -> None:
    for path in ("/v1/customers", "/billing", "/health"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code, answer.json()["reason"]) == (421, "HOST_NOT_LOCAL")
        assert "localhost" in answer.json()["detail"]


def test_a_request_without_a_host_is_refused(gateway: str) -> None:
    port = urlsplit(gateway).port
    with socket.create_connection(("127.0.0.1", port or 0)) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"421"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_changes_nothing(
    client: httpx.Client, services: dict[str, ServiceDouble], headers: dict[str, str]
) -> None:
    answer = client.post("/v1/customers", json={"display_name": "A"}, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (403, "CROSS_SITE_REQUEST")
    assert services["billing"].calls == []


def test_the_gateways_own_pages_may_ask_for_changes(client: httpx.Client, gateway: str) -> None:
    headers = {"Origin": gateway, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/customers", json={"display_name": "A"}, headers=headers).status_code == 200


def test_other_sites_may_link_here(client: httpx.Client) -> None:
    assert client.get("/billing", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
