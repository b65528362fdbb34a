"""The data folder: made, locked, and left alone when it is somebody else's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.folder import DataFolder

NOBODY = 65534


@pytest.fixture
def unowned() -> Iterator[Path]:
    """A folder that an ordinary user can see and not write, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_new_folder_is_for_its_owner_only_and_its_parents_keep_their_modes(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mode
    with DataFolder.open(tmp_path / "data") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode == before


def test_a_folder_in_use_is_refused_with_the_process_that_has_it(tmp_path: Path) -> None:
    with (
        DataFolder.open(tmp_path),
        pytest.raises(SupervisorError, match=f"is in use: .* as process {os.getpid()}; .*--data-dir"),
    ):
        DataFolder.open(tmp_path)
    DataFolder.open(tmp_path).__exit__(None, None, None)


@pytest.mark.parametrize("content", ['{"layout": 7}', "nonsense", "[]"])
def test_a_folder_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "layout.json").write_text(content)
    with pytest.raises(SupervisorError, match=f"{tmp_path} was written by another version") as refused:
        DataFolder.open(tmp_path)
    assert "this version reads 1; nothing was changed" in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["layout.json"]


def test_data_without_a_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(SupervisorError, match="its layout is unknown"):
        DataFolder.open(tmp_path)


def test_a_file_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(SupervisorError, match="is a file: name a folder with --data-dir"):
        DataFolder.open(tmp_path / "data")


@pytest.mark.parametrize("name", ["", "data"])
def test_a_folder_without_write_permission_is_named_with_its_owner_and_mode(unowned: Path, name: str) -> None:
    # What is imported before the user changes may lie in folders that only root can read.
    program = (
        "import os, sys; from pathlib import Path; from meterscope.commands import up\n"
        f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "up.up(['--data-dir', sys.argv[1]])\n"
    )
    folder = unowned / name
    command = [sys.executable, "-c", program, str(folder)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    user = os.geteuid() or NOBODY
    assert f"{folder} cannot be written: {unowned} belongs to user {os.geteuid()} with mode 0555" in refused.stderr
    assert f"this is user {user}" in refused.stderr
    assert "--data-dir" in refused.stderr
    assert list(unowned.iterdir()) == []


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path) as folder:
        folder.write("run.json", {"pid": 1})
        folder.write("run.json", {"pid": 2})
        assert json.loads((tmp_path / "run.json").read_text()) == {"pid": 2}
        assert sorted(file.name for file in tmp_path.iterdir()) == ["layout.json", "run.json", "up.lock"]
