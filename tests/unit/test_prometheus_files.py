"""The alert rules and the dashboard in docs/prometheus: what promtool says of them, and that each metric exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netobs.base.clock import ClockPair
from netobs.daemon.flow_rates import FlowRates
from netobs.daemon.interface_metrics import InterfaceMetrics
from netobs.daemon.openmetrics import PROCESS, SINGLES, families, text
from netobs.flow.records import FlowBatch, empty
from tests.unit.daemon.documents import DOCUMENT, columns
from tools.make_dashboard import dashboard

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "prometheus"
RULES = (FOLDER / "netobs.rules.yml").read_text("utf-8")
PANEL: dict[str, Any] = {
    "id": int,
    "type": ("stat", "timeseries"),
    "title": str,
    "description": str,
    "datasource": {"type": ("prometheus",), "uid": str},
    "gridPos": {"h": int, "w": int, "x": int, "y": int},
    "fieldConfig": {
        "defaults": {
            "unit": ("short", "bps", "pps", "s", "bytes", "percentunit"),
            "thresholds": {"mode": ("absolute",), "steps": [{"color": str, "value": (int, float, type(None))}]},
        },
        "overrides": list,
    },
    "options": dict,
    "targets": [{"refId": str, "datasource": dict, "expr": str, "legendFormat": str}],
}
ROW: dict[str, Any] = {**{key: PANEL[key] for key in ("id", "title", "gridPos")}, "type": ("row",), "panels": list}
VARIABLE: dict[str, Any] = {
    "name": str,
    "label": str,
    "type": ("datasource", "query"),
    "query": (str, dict),
    "hide": int,
}
SCHEMA: dict[str, Any] = {
    "uid": str,
    "title": str,
    "schemaVersion": int,
    "version": int,
    "timezone": ("browser",),
    "time": {"from": str, "to": str},
    "refresh": str,
    "editable": bool,
    "tags": list,
    "links": list,
    "annotations": {"list": list},
    "templating": {"list": [VARIABLE]},
    "panels": list,
}
"""The part of Grafana's model of a dashboard (kinds/dashboard, schema version 37) that this one uses."""


def wrong(value: Any, schema: Any, place: str = "") -> list[str]:
    """The places at which ``value`` is not as ``schema`` says: a type, words or types to choose from, the items of a
    list, the keys of an object, which may have others as well."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [place]
        return [each for key, part in schema.items() for each in wrong(value.get(key, wrong), part, f"{place}.{key}")]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [place]
        return [each for number, item in enumerate(value) for each in wrong(item, schema[0], f"{place}[{number}]")]
    if isinstance(schema, tuple):
        right = value in schema or any(isinstance(each, type) and isinstance(value, each) for each in schema)
    else:
        right = isinstance(value, schema)
    return [] if right else [place]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        give_up = pytest.fail if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1" else pytest.skip
        give_up("promtool is not installed: run tools/install-tools.sh test")
    return subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)


def known_names() -> set[str]:
    """The names of all samples that a daemon gives."""
    rates = FlowRates()
    records = empty(1)
    records["packets"] = np.uint64(1)
    rates.add(FlowBatch(records, ClockPair(1, 1)))
    of_interfaces = InterfaceMetrics().families(*columns(DOCUMENT["interfaces"]))
    said = text([*families(DOCUMENT, of_interfaces, SINGLES + PROCESS), *rates.families()], openmetrics=True)
    return {"up", *re.findall(r"^([a-z_]+)[{ ]", said, re.MULTILINE)}


def named_in(expressions: str) -> set[str]:
    return set(re.findall(r"\b(?:netobs|process)_[a-z_]+\b", expressions))


def expressions_of_rules() -> str:
    return "\n".join(re.findall(r"^        expr: ((?:\|\n(?:         .*\n)+)|.*\n)", RULES, re.MULTILINE))


def test_promtool_reads_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "netobs.rules.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {RULES.count('- alert: ')} rules found" in done.stdout


def test_each_alert_fires_for_what_it_is_made_for() -> None:
    done = promtool("test", "rules", "netobs.rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r'alertname="(\w+)"', (FOLDER / "netobs.rules.test.yml").read_text("utf-8")))
    assert tested == set(re.findall(r"- alert: (\w+)", RULES))


def test_each_alert_says_what_it_is_and_what_to_do() -> None:
    for rule in RULES.split("- alert: ")[1:]:
        assert re.search(r"^        labels: \{severity: (critical|warning|info)\}$", rule, re.MULTILINE)
        for name in ("summary", "description", "remedy"):
            assert len(re.findall(rf"^          {name}: .{{20,}}$", rule, re.MULTILINE)) == 1, rule


def test_the_rules_and_the_dashboard_name_metrics_that_exist() -> None:
    of_rules, of_panels = expressions_of_rules(), "\n".join(expressions())
    assert len(named_in(of_rules)) > 20
    assert len(named_in(of_panels)) > 20
    assert (named_in(of_rules) | named_in(of_panels)) - known_names() == set()


def shown() -> Any:
    return json.loads((FOLDER / "netobs.dashboard.json").read_text("utf-8"))


def expressions() -> list[str]:
    return [target["expr"] for panel in shown()["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_is_what_the_script_makes() -> None:
    assert shown() == dashboard()


def test_the_dashboard_follows_the_schema() -> None:
    board = shown()
    assert wrong(board, SCHEMA) == []
    for panel in board["panels"]:
        assert wrong(panel, ROW if panel["type"] == "row" else PANEL, panel["title"]) == []
    assert wrong({"id": "1", "type": "pie"}, {"id": int, "type": ("row",), "title": str}) == [".id", ".type", ".title"]


def test_the_panels_fill_the_grid_and_overlap_nowhere() -> None:
    panels = shown()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])}
        assert not cells & taken
        taken |= cells
    assert len(taken) == 24 * len({line for _, line in taken})


def test_each_query_selects_the_host() -> None:
    assert [each for each in expressions() if 'instance=~"$instance"' not in each and "up{" not in each] == []
