import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_names_every_variable_that_the_settings_declare() -> None:
    program = runpy.run_path(str(ROOT / "scripts/environment.py"))
    assert (ROOT / ".env.example").read_text() == program["render"](), "run: make environment"
