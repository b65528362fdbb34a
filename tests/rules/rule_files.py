"""Prometheus' rules, their tests and their runbooks as they lie in the tree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "otel-collector/prometheus"
RUNBOOKS = ROOT / "docs/runbooks"


@dataclass(frozen=True)
class Rule:
    """A recording or alerting rule; `file` is its file's name without the ending."""

    file: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        name: str = self.content.get("alert") or self.content["record"]
        return name

    @property
    def expr(self) -> str:
        return str(self.content["expr"])

    @property
    def is_alert(self) -> bool:
        return "alert" in self.content

    @property
    def is_about_absence(self) -> bool:
        """Whether it fires when something is not there: anywhere, or in an environment that is known."""
        return "absent_over_time(" in self.expr or ":expected" in self.expr

    def __str__(self) -> str:
        return self.name


def load() -> list[Rule]:
    return [
        Rule(path.stem, content)
        for path in sorted((PROMETHEUS / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for content in group["rules"]
    ]


def load_tests() -> list[dict[str, Any]]:
    """The tests of alerts: `alertname`, `eval_time`, and `exp_alerts` where it fires."""
    return [
        each
        for path in sorted((PROMETHEUS / "tests").glob("*.yml"))
        for test in yaml.safe_load(path.read_text())["tests"]
        for each in test.get("alert_rule_test", [])
    ]


RULES = load()
ALERTS = [rule for rule in RULES if rule.is_alert]
RECORDED = {rule.name for rule in RULES if not rule.is_alert}
