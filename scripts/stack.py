"""The telemetry's real stack without containers: `build`, `validate`, `rules`, `run` and `demo`.

Runs the programs of `stack_programs.py` on loopback with the very files of `otel-collector/` that docker-compose.yml
mounts; only addresses and data folders differ, and those are variables in the files.
"""

# ruff: noqa: T201 - a program's output

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import stack_demo
import stack_programs
from stack_programs import CONFIGURATION, ROOT, StackError
from stack_running import Ports, Stack

_DEFAULT_DATA: Final = ROOT / ".meterscope" / "stack"
# The rules' tests step through days.
_PROGRAM_SECONDS: Final = 300
_SHOWN_CHARACTERS: Final = 4000


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what is not in the cache yet")
    build.add_argument("only", nargs="*", metavar="NAME", help="of programs.toml; all of them by default")
    commands.add_parser("validate", help="let each program check its configuration")
    commands.add_parser("rules", help="let promtool check Prometheus' rules and run their tests")
    for name, purpose in {
        "run": "run until Ctrl-C",
        "demo": "run the main job through it and say where to look",
    }.items():
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--data-dir", type=Path, default=_DEFAULT_DATA, help="where all state goes")
        command.add_argument("--port", type=int, help="first of 10 ports in a row; else each program's usual one")
        if name == "demo":
            command.add_argument("--exit", action="store_true", help="stop after the demo")
            command.add_argument("rest", nargs="*", help="arguments of `meterscope demo`, after --")
    chosen = parser.parse_args()
    try:
        if chosen.command == "build":
            stack_programs.build(chosen.only)
        elif chosen.command == "validate":
            validate()
        elif chosen.command == "rules":
            check_rules()
        else:
            _run(chosen)
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    return 0


def validate() -> None:
    """Let each program check the files that it is started with, overlays included.

    Raises:
        StackError: a program refuses its configuration.
    """
    programs = stack_programs.programs()
    check_rules()
    folder = CONFIGURATION
    collector, agent = folder / "collector.yaml", folder / "agent.yaml"
    overlays = [folder / "gateway.yaml", *sorted((folder / "overlays").glob("*.yaml"))]
    checks: dict[str, Sequence[str | Path]] = {
        "collector.yaml": [programs["otelcol"], "validate", f"--config={collector}"],
        "agent.yaml": [programs["otelcol"], "validate", f"--config={agent}"],
        **{
            str(overlay.relative_to(folder)): [
                programs["otelcol"],
                "validate",
                f"--config={collector}",
                f"--config={overlay}",
            ]
            for overlay in overlays
        },
        "jaeger.yaml": [programs["jaeger"], "validate", f"--config={folder / 'jaeger' / 'jaeger.yaml'}"],
        "loki.yaml": [
            programs["loki"],
            "-verify-config",
            "-config.expand-env=true",
            f"-config.file={folder / 'loki' / 'loki.yaml'}",
        ],
    }
    # What the overlays have to be given; nothing is sent.
    given = {
        "COLLECTOR_DATA": "/tmp",  # noqa: S108 - nothing is written there
        "DD_API_KEY": "none",
        "NEW_RELIC_LICENSE_KEY": "none",
        "ELASTIC_API_KEY": "none",
        "ELASTIC_OTLP_ENDPOINT": "https://localhost",
    }
    for name, command in checks.items():
        _check(name, command, given)
        print(f"{name}: valid")


def check_rules() -> None:
    """Let promtool check Prometheus' configuration with its rules, and run the rules' tests.

    Raises:
        StackError: promtool is not built, or finds something wrong.
    """
    promtool = stack_programs.programs(["prometheus"])["promtool"]
    folder = CONFIGURATION / "prometheus"
    tests = sorted((folder / "tests").glob("*.yml"))
    for name in ("prometheus.yml", "scrape-gateway.yml"):
        _check(name, [promtool, "check", "config", "--lint-fatal", folder / name], {})
    _check("tests of the rules", [promtool, "test", "rules", *tests], {})
    print(f"rules: valid, {len(tests)} files of tests passed")


def _check(name: str, command: Sequence[str | Path], given: Mapping[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 - built from pinned sources
        [str(part) for part in command],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROGRAM_SECONDS,
    )
    if done.returncode:
        raise StackError(f"{name}:\n{(done.stdout + done.stderr).strip()[-_SHOWN_CHARACTERS:]}")


def _run(chosen: argparse.Namespace) -> None:
    ports = Ports.in_a_row(chosen.port) if chosen.port else Ports()
    began = time.monotonic()
    with _ended_by_signals(), Stack(stack_programs.programs(), chosen.data_dir.absolute(), ports) as stack:
        stack.wait_until_healthy()
        print(f"the stack is ready after {time.monotonic() - began:.1f} s (data in {stack.folder})")
        for name, address in ports.addresses.items():
            print(f"  {name:22}{address}")
        print(
            f"  send telemetry with      OTEL_EXPORTER_OTLP_ENDPOINT=http://{ports.addresses['OTLP gRPC']}", flush=True
        )
        # Whoever waits for it, such as a test, finds the addresses here.
        (stack.folder / "stack.json").write_text(json.dumps({"addresses": ports.addresses, "pids": stack.pids}))
        if chosen.command == "demo":
            stack_demo.run(ports, chosen.data_dir.absolute() / "demo", chosen.rest)
            if chosen.exit:
                return
            print("stop with Ctrl-C", flush=True)
        stack.supervise()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an end in order."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with contextlib.suppress(KeyboardInterrupt):
        yield


if __name__ == "__main__":
    sys.exit(main())
