"""docker-compose.yml cannot be run without an engine; what can be read off it is held here, to `make stack` as well."""

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit.settings import variables

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))
import stack_running  # noqa: E402 - the scripts are no package

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [f"{name}{suffix}" for name in ("usage", "billing", "payments", "alerts") for suffix in ("", "-worker")] + [
    "gateway"
]
# In this order where spans are taken.
REDACTION = ["transform/texts_in", "redaction", "transform/texts_out"]
# Ends before the others start.
ONCE = {"otel-collector-data"}
# What containers do not take from outside, each for its reason.
UNPASSED = {
    "METERSCOPE_DATA_DIR": "unset, the working folder's disk is watched: the engine's",
    "METERSCOPE_METRICS_SINK": "there is a collector",
    "METERSCOPE_TRACE_FILE": "a container's file system is read-only",
    "LOG_DIR": "likewise; log lines go to standard output and to Loki",
    "LOG_FILE_BYTES": "of log files",
    "LOG_RETENTION_DAYS": "of log files",
    "LOG_FILES": "of log files",
    **{f"METERSCOPE_{name}_SCHEMA": "each database is the service's own" for name in ("USAGE", "PAYMENTS", "ALERTS")},
    "METERSCOPE_BILLING_SCHEMA": "likewise",
}
# Ours to set: addresses inside, and what holds passwords.
FIXED = re.compile(r"METERSCOPE_\w+_ADDRESS|\w+_DATABASE_URL|REDIS_URL|OTEL_EXPORTER_OTLP_ENDPOINT")
# An image without a shell or a client to ask with: its readiness is not waited for.
UNASKED = {"otel-collector"}
# The stack's programs as docker-compose.yml names them, and in programs.toml.
SAME = {"otelcol": "otel-collector", "prometheus": "prometheus", "jaeger": "jaeger", "loki": "loki"}
PINS = tomllib.loads((ROOT / "otel-collector/programs.toml").read_text())
PLAN = {program.name: program for program in stack_running.plan(Path("/data"), stack_running.Ports())}


def test_every_process_and_server_is_there() -> None:
    others = {"postgres", "valkey", "otel-collector", "prometheus", "jaeger", "loki", "grafana"}
    assert set(SERVICES) == {*OURS, *others, *ONCE}


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_pinned_bounded_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+", service["image"])
    assert service["mem_limit"]
    assert name in UNASKED | ONCE or service["healthcheck"]["test"]
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


def declared(name: str) -> set[str]:
    """The first names of the variables that a process reads."""
    module = SERVICES[name]["command"][2]
    return {spec.names[0] for spec in variables(importlib.import_module(f"{module}.settings").Settings).values()}


@pytest.mark.parametrize("name", OURS)
def test_a_process_is_given_every_setting_that_is_documented(name: str) -> None:
    environment = SERVICES[name]["environment"]
    of_others = {f"METERSCOPE_{other}_WORKER_ADDRESS" for other in ("USAGE", "BILLING", "PAYMENTS", "ALERTS")}
    assert declared(name) - set(UNPASSED) - of_others <= set(environment)
    assert not set(environment) & set(UNPASSED)
    for variable, value in environment.items():
        if variable in declared(name) and not FIXED.fullmatch(variable):
            # Passed on under its own name; without a value of its own the process' default holds.
            assert value is None or re.fullmatch(rf"\$\{{{variable}:[-?].+\}}", value), variable


def test_what_the_collector_is_asked_to_keep_is_passed_on() -> None:
    environment = SERVICES["otel-collector"]["environment"]
    passed = {name for name, value in environment.items() if value is None}
    assert passed == {"COLLECTOR_DECISION_WAIT", "COLLECTOR_SAMPLED_PERCENT", "COLLECTOR_INSTANCE"}
    assert environment["METERSCOPE_ENVIRONMENT"] == SERVICES["usage"]["environment"]["METERSCOPE_ENVIRONMENT"]


def test_the_containers_are_one_machine() -> None:
    assert {SERVICES[name]["environment"]["OTEL_RESOURCE_ATTRIBUTES"] for name in OURS} == {
        "${OTEL_RESOURCE_ATTRIBUTES:-host.name=docker}"
    }


def test_the_collectors_pipelines_name_parts_that_are_defined() -> None:
    config = configuration("collector.yaml")
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline.get(kind, [])) <= {*config[kind], *config["connectors"]}


@pytest.mark.parametrize("name", SAME)
def test_containers_are_the_releases_that_the_stack_builds(name: str) -> None:
    release = SERVICES[SAME[name]]["image"].split(":")[1].removeprefix("v")
    assert release == PINS[name]["release"]


def test_the_collector_is_built_of_one_release() -> None:
    text = (ROOT / "otel-collector/builder.yaml").read_text()
    assert set(
        re.findall(
            r"gomod: \S+/(?:opentelemetry-collector-contrib|exporter|receiver|processor|connector)\S* (\S+)", text
        )
    ) == {PINS["otelcol"]["version"]}


@pytest.mark.parametrize("name", SAME)
def test_containers_and_the_stack_read_the_same_file(name: str) -> None:
    mounted = [volume.split(":") for volume in SERVICES[SAME[name]]["volumes"] if volume.startswith("./")]
    ours, inside = mounted[0][:2]
    # What the file names by a relative path lies beside it in the container too.
    for folder, mounted_at, _ in mounted[1:]:
        assert Path(folder).parent == Path(ours).parent
        assert mounted_at == str(Path(inside).parent / Path(folder).name)
    option = re.compile(r"--?config(?:\.file)?=")
    read_by_stack = [option.sub("", argument) for argument in PLAN[name].arguments if option.match(argument)]
    read_by_container = [
        option.sub("", argument) for argument in SERVICES[SAME[name]]["command"] if option.match(argument)
    ]
    assert read_by_stack == [str(ROOT / ours)]
    assert read_by_container == [inside]


@pytest.mark.parametrize("name", SAME)
def test_containers_and_the_stack_give_the_same_options(name: str) -> None:
    def chosen(arguments: list[str]) -> list[str]:
        return [
            part
            for part in arguments
            if not re.match(r"--?(config(\.file)?|storage\.tsdb\.path|web\.listen-address)=", part)
        ]

    assert chosen(SERVICES[SAME[name]]["command"]) == chosen(list(PLAN[name].arguments))


@pytest.mark.parametrize("name", SAME)
def test_what_containers_and_the_stack_set_is_what_the_file_reads(name: str) -> None:
    mounted = next(volume.split(":")[0] for volume in SERVICES[SAME[name]]["volumes"] if volume.startswith("./"))
    read = set(re.findall(r"\$\{(?:env:)?([A-Z_]+)", (ROOT / mounted).read_text()))
    of_go = {"GOMEMLIMIT"}
    assert set(SERVICES[SAME[name]].get("environment", {})) - of_go <= read
    assert set(PLAN[name].environment) <= read


def test_prometheus_finds_its_rules_in_the_container() -> None:
    assert configuration("prometheus/prometheus.yml")["rule_files"] == ["rules/*.yml"]
    assert "./otel-collector/prometheus/rules:/etc/prometheus/rules:ro" in SERVICES["prometheus"]["volumes"]


@pytest.mark.parametrize("overlay", sorted(path.name for path in (ROOT / "otel-collector/overlays").iterdir()))
def test_no_overlay_takes_metrics_from_the_sink(overlay: str) -> None:
    pipelines = configuration(f"overlays/{overlay}")["service"]["pipelines"]
    assert "metrics/sink" not in pipelines
    assert configuration("collector.yaml")["service"]["pipelines"]["metrics/sink"]["exporters"] == ["otlp_grpc/sink"]


def test_whoever_scrapes_the_gateway_has_the_rules_that_are_not_the_collectors() -> None:
    folder = ROOT / "otel-collector/prometheus"
    rules = [str(path.relative_to(folder)) for path in sorted(folder.glob("rules/*.yml"))]
    assert configuration("prometheus/scrape-gateway.yml")["rule_files"] == [
        rule for rule in rules if rule != "rules/telemetry.yml"
    ]


@pytest.mark.parametrize("name", REDACTION)
def test_the_agent_redacts_as_the_collector_does(name: str) -> None:
    assert configuration("agent.yaml")["processors"][name] == configuration("collector.yaml")["processors"][name]


@pytest.mark.parametrize("name", ["collector.yaml", "gateway.yaml", "agent.yaml"])
def test_names_and_statuses_of_spans_are_redacted_with_their_attributes(name: str) -> None:
    pipelines = configuration(name)["service"]["pipelines"]
    (taking,) = [each for key, each in pipelines.items() if key.startswith("traces") and each["receivers"] == ["otlp"]]
    assert taking["processors"][-3:] == REDACTION


@pytest.mark.parametrize(
    "name",
    ["collector.yaml", "agent.yaml", *(f"overlays/{vendor}.yaml" for vendor in ("datadog", "newrelic", "elastic"))],
)
def test_every_exporter_queues_on_disk_and_never_gives_up(name: str) -> None:
    exporters = configuration(name)["exporters"]
    # What it sends is replaced by what comes next, and it may be away for good.
    sink = exporters.pop("otlp_grpc/sink", None)
    assert sink is None or ("storage" not in sink["sending_queue"] and not sink["retry_on_failure"]["enabled"])
    for exporter in exporters.values():
        assert exporter["sending_queue"]["storage"] == "file_storage"
        assert exporter["sending_queue"]["batch"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == 0


@pytest.mark.parametrize("name", ["collector.yaml", "agent.yaml"])
def test_queues_are_synced(name: str) -> None:
    assert configuration(name)["extensions"]["file_storage"]["fsync"] is True


def configuration(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "otel-collector" / name).read_text())
    return found
