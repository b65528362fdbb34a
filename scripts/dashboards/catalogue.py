"""All dashboards, and the files that they are written to."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards import page
from scripts.dashboards.api import api
from scripts.dashboards.calls import calls
from scripts.dashboards.customer import customer
from scripts.dashboards.jobs import jobs
from scripts.dashboards.overview import overview
from scripts.dashboards.performance import performance
from scripts.dashboards.redis import redis
from scripts.dashboards.slo import slo
from scripts.dashboards.system import system

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "otel-collector/grafana/dashboards"
PAGE: Final = ROOT / "docs/dashboards.md"


def dashboards() -> list[Dashboard]:
    """Return all of them, in the order of the page."""
    return [overview(), customer(), api(), performance(), slo(), jobs(), redis(), calls(), system()]


def render() -> dict[Path, str]:
    """Return every file's text: a JSON file for each dashboard, and the page that describes them."""
    found = dashboards()
    files = {FOLDER / f"{each.uid}.json": _encoded(each) for each in found}
    return {**files, PAGE: page.render(found)}


def _encoded(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
