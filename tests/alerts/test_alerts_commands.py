import os
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.alerts.__main__ import main
from tests.eventually import eventually
from tests.ports import free_ports


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.alerts", *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_missing_variables_are_all_named() -> None:
    ended = run("work")
    assert ended.returncode == 78
    assert "ALERTS_DATABASE_URL (or DATABASE_URL) is not set" in ended.stderr
    assert "REDIS_URL is not set" in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERTS_DATABASE_URL", "mysql://here"),
        ("REDIS_URL", "here"),
        ("METERSCOPE_WEBHOOK_TIMEOUT_SECONDS", "soon"),
        ("METERSCOPE_ALLOW_PRIVATE_WEBHOOKS", "perhaps"),
        ("METERSCOPE_NOTIFICATION_ATTEMPTS", "0"),
    ],
)
def test_a_malformed_variable_is_named(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    assert main(["migrate"], {**environ, name: value}) == 78
    assert name in capsys.readouterr().err


def test_an_open_address_without_a_token_is_refused_with_the_reason(environ: dict[str, str]) -> None:
    ended = run("serve", **{**environ, "METERSCOPE_ALERTS_ADDRESS": "0.0.0.0:0"})
    assert ended.returncode == 78
    assert "METERSCOPE_SERVICE_TOKEN" in ended.stderr


def test_serve_migrates_answers_and_stops_at_a_signal(environ: dict[str, str]) -> None:
    address = f"127.0.0.1:{free_ports()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "services.alerts", "serve", "--migrate"],
        env={**os.environ, **environ, "METERSCOPE_ALERTS_ADDRESS": address},
        stdout=subprocess.DEVNULL,
    )
    try:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="meterscope.alerts.v1.AlertService")

            def serving() -> bool:
                assert process.poll() is None
                try:
                    answer = health.Check(request, timeout=1)  # type: ignore[attr-defined]
                except grpc.RpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            eventually(serving)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
