"""Builds the real programs behind the telemetry, once, into the user's cache: no engine, no images, no downloads but Go modules.

Each lands in `${XDG_CACHE_HOME:-~/.cache}/meterscope/stack/<name>-<version>/`; what is there is not built again.
`otel-collector/programs.toml` pins the versions. The Go toolchain's checksum database stays on.
"""

# ruff: noqa: T201 - a program's output

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
CONFIGURATION: Final = ROOT / "otel-collector"
_PINS: Final = CONFIGURATION / "programs.toml"


class StackError(Exception):
    """The stack cannot be built or run. The message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """What one folder of the cache is built from.

    Attributes:
        name: such as `prometheus`.
        release: the version that the program tells of itself, and of the image in docker-compose.yml.
        module: the Go module.
        version: the module's.
        programs: the package of each program that is built, by the program's name.
        manifest: the collector builder's, for what is not built from its module but from sources made by it.
        release_variable: the Go variable that holds the release, set when linking.
        without_replacement_of: modules whose `replace` line is left out.
    """

    name: str
    release: str
    module: str
    version: str
    programs: Mapping[str, str]
    manifest: Path | None
    release_variable: str
    without_replacement_of: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its programs are kept."""
        digest = ""
        if self.manifest:
            digest = "-" + hashlib.sha256(self.manifest.read_bytes()).hexdigest()[:12]
        return cache() / f"{self.name}-{self.release}{digest}"

    @property
    def missing(self) -> list[str]:
        """The programs that are not built yet."""
        return [name for name in self.programs if not (self.folder / name).exists()]


def cache() -> Path:
    """Return the folder that holds all programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meterscope" / "stack"


def sources() -> list[Source]:
    """Return everything that is pinned."""
    with _PINS.open("rb") as file:
        pins: dict[str, dict[str, Any]] = tomllib.load(file)
    return [
        Source(
            name=name,
            release=pin["release"],
            module=pin["module"],
            version=pin["version"],
            programs=pin["programs"],
            manifest=CONFIGURATION / pin["manifest"] if "manifest" in pin else None,
            release_variable=pin.get("release_variable", ""),
            without_replacement_of=tuple(pin.get("without_replacement_of", ())),
        )
        for name, pin in pins.items()
    ]


def programs(of: Collection[str] = ()) -> dict[str, Path]:
    """Return where each program is, by name.

    Args:
        of: names of sources; all of them by default.

    Raises:
        StackError: one is not built, or there is no such source.
    """
    chosen = _chosen(of)
    if missing := [name for source in chosen for name in source.missing]:
        raise StackError(f"not built yet: {', '.join(missing)} (looked in {cache()}): run `make stack-build`")
    return {name: source.folder / name for source in chosen for name in source.programs}


def build(only: Collection[str] = ()) -> None:
    """Build what is missing, one after another, and print how long each took.

    Args:
        only: names of sources; all of them by default.

    Raises:
        StackError: there is no such source, there is no Go, or a build failed.
    """
    for source in _chosen(only):
        if not source.missing:
            print(f"{source.name} {source.release}: there already ({source.folder})", flush=True)
            continue
        print(f"{source.name} {source.release}: building …", flush=True)
        began = time.monotonic()
        with _locked():
            _build(source)
        print(f"{source.name} {source.release}: built in {time.monotonic() - began:.0f} s", flush=True)


def _chosen(names: Collection[str]) -> list[Source]:
    known = {source.name: source for source in sources()}
    if unknown := set(names) - set(known):
        raise StackError(f"not in {_PINS.name}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [source for name, source in known.items() if not names or name in names]


@contextmanager
def _locked() -> Iterator[None]:
    """Keep a second build waiting: it then finds everything there."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(source: Source) -> None:
    if shutil.which("go") is None:
        raise StackError("the Go toolchain is needed to build the stack: install Go 1.26 or later")
    source.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="meterscope-stack-") as name:
        work = Path(name)
        if source.manifest:
            folder, options = _generated(source, work), ["-mod=mod"]
        else:
            folder, options = _downloaded(source), _other_go_mod(source, work)
        linker = "-s -w" + (f" -X {source.release_variable}={source.release}" if source.release_variable else "")
        for program in source.missing:
            package = source.programs[program]
            target = source.folder / f"{program}.new"
            _go("build", "-trimpath", *options, "-ldflags", linker, "-o", str(target), package, folder=folder)
            target.replace(source.folder / program)


def _generated(source: Source, work: Path) -> Path:
    """Let the collector's builder write the sources.

    Their go.mod is written here: the builder would then download every module that any of them mentions, needed or not,
    and not all of those can be had everywhere. What is needed is downloaded, and checked, by the build itself.
    """
    assert source.manifest  # noqa: S101 - for the type checker
    shutil.copy(source.manifest, work / "builder.yaml")
    builder = f"{source.module}@{source.version}"
    _go("run", builder, "--config=builder.yaml", "--skip-compilation", "--skip-get-modules", folder=work)
    modules = re.findall(r"^ *- gomod: (\S+ \S+)$", source.manifest.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [*modules, f"go.opentelemetry.io/collector/otelcol {source.version}"]
    requirements = "".join(f"\t{line}\n" for line in lines)
    folder = work / "sources"
    (folder / "go.mod").write_text(
        f"module meterscope/otelcol\n\ngo 1.25\n\nrequire (\n{requirements})\n", encoding="utf-8"
    )
    return folder


def _downloaded(source: Source) -> Path:
    answer = _go("mod", "download", "-json", f"{source.module}@{source.version}", folder=Path(tempfile.gettempdir()))
    return Path(json.loads(answer)["Dir"])


def _other_go_mod(source: Source, work: Path) -> list[str]:
    """Return the options that build with a changed copy of go.mod, if it has to be changed."""
    if not source.without_replacement_of:
        return []
    folder = _downloaded(source)
    text = (folder / "go.mod").read_text(encoding="utf-8")
    for module in source.without_replacement_of:
        text, count = re.subn(rf"^(?:replace )?\s*{re.escape(module)} => .*\n", "", text, flags=re.MULTILINE)
        if count != 1:
            raise StackError(f"{folder}/go.mod has {count} replacements of {module}, expected one")
    (work / "go.mod").write_text(text, encoding="utf-8")
    shutil.copyfile(folder / "go.sum", work / "go.sum")
    return [f"-modfile={work / 'go.mod'}", "-mod=mod"]


def _go(*arguments: str, folder: Path) -> str:
    """Run the Go tool and return what it printed."""
    environment = {**os.environ, "GOWORK": "off"}
    done = subprocess.run(  # noqa: S603 - the Go toolchain
        ["go", *arguments],  # noqa: S607 - as found on the path
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"go {' '.join(arguments[:2])} failed in {folder}:\n{done.stderr[-4000:]}")
    return done.stdout
