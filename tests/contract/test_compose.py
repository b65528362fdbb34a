"""docker-compose.yml cannot be run without an engine; what can be read off it is held here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [f"{name}{suffix}" for name in ("usage", "billing", "payments", "alerts") for suffix in ("", "-worker")] + [
    "gateway"
]
# Images without a shell or a client to ask with: their readiness is not waited for.
UNASKED = {"otel-collector", "jaeger", "loki"}


def test_every_process_and_server_is_there() -> None:
    others = {"postgres", "valkey", "otel-collector", "prometheus", "jaeger", "loki", "grafana"}
    assert set(SERVICES) == {*OURS, *others}


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_pinned_bounded_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+", service["image"])
    assert service["mem_limit"]
    assert name in UNASKED or service["healthcheck"]["test"]
    if "build" not in service:
        assert service["user"] not in {"root", "0"}
    assert "USER 10001" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_are_there_and_state_has_a_named_volume(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists()
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_our_processes_start_modules_that_are_there(name: str) -> None:
    command = SERVICES[name]["command"]
    assert command[:2] == ["python", "-m"]
    assert (ROOT / command[2].replace(".", "/") / "__main__.py").exists()


def test_the_collectors_pipelines_name_parts_that_are_defined() -> None:
    config = yaml.safe_load((ROOT / "otel-collector/collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
