"""Metrics: one list of names, the documentation, the dashboard, and what is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime.ops.metrics import INSTALLATION, METRICS, PROCESS
from realtime.util.counters import Counters, Histogram

ROOT = Path(__file__).resolve().parents[3]
NAMES = {metric.name for metric in METRICS}


def section() -> str:
    text = (ROOT / "docs" / "reference" / "operations.md").read_text()
    return text.partition("\n## Metrics\n")[2].partition("\n## ")[0]


def plain(name: str) -> str:
    """The metric a series belongs to."""
    for ending in ("_bucket", "_count", "_sum"):
        if name.removesuffix(ending) in NAMES:
            return name.removesuffix(ending)
    return name


def test_the_documentation_lists_every_metric_with_its_type_and_no_other() -> None:
    rows = re.findall(r"^\| `(realtime_\w+)` \| (\w+) \| .+ \|$", section(), re.MULTILINE)
    assert rows == [(metric.name, metric.kind) for metric in METRICS]


def test_the_documentation_s_labels_are_those_of_the_metric() -> None:
    for metric in METRICS:
        (row,) = re.findall(rf"^\| `{metric.name}` \|.*$", section(), re.MULTILINE)
        assert all(f"`{label}`" in row for label in metric.labels), row


def test_the_documentation_speaks_of_no_metric_that_does_not_exist() -> None:
    assert {plain(name) for name in re.findall(r"realtime_\w+", section())} <= NAMES


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("expr", "query") and isinstance(item, str) and item != "prometheus":
                yield item
            else:
                yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


def test_the_dashboard_uses_only_metrics_that_exist_and_labels_that_they_have() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    used = list(expressions(dashboard))
    assert len(used) > 15
    by_name = {metric.name: metric for metric in METRICS}
    for expression in used:
        names = [plain(name) for name in re.findall(r"realtime_\w+", expression)]
        assert names and set(names) <= NAMES, expression
        labels = {label for name in names for label in by_name[name].labels}
        labels |= {"instance", "job", "le"}
        for inside in re.findall(r"by \(([^)]*)\)", expression):
            assert {name.strip() for name in inside.split(",")} <= labels, expression
        for inside in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", inside)) <= labels, expression


def test_panels_of_the_dashboard_do_not_lie_on_each_other() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_names_follow_prometheus_habits() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.help.endswith(".")
    assert len(NAMES) == len(METRICS) == len(PROCESS) + len(INSTALLATION)


def test_every_counter_of_a_process_is_a_metric() -> None:
    sources = {metric.source for metric in PROCESS}
    assert set(Counters.__slots__) <= sources


@pytest.mark.parametrize(
    ("value", "place"), [(0, 0), (1, 0), (1.5, 1), (10, 1), (11, 2), (10_000, 4), (10_001, 5)]
)
def test_a_histogram_counts_a_value_at_its_bound_below_it(value: float, place: int) -> None:
    histogram = Histogram((1, 10, 100, 1_000, 10_000))
    histogram.add(value)
    assert histogram.counts.index(1) == place
    assert (sum(histogram.counts), histogram.total) == (1, value)


def test_the_row_of_a_process_holds_plain_numbers_alone() -> None:
    counters = Counters()
    counters.limits["joins_per_second/address"] += 2
    counters.limits["frame_bytes/connection"] += 1
    counters.sent(3, 10)
    flat = counters.flat()
    assert flat["limits"] == 3
    assert (flat["frames_out"], flat["bytes_out"]) == (3, 30)
    assert all(type(value) is int for value in flat.values())
