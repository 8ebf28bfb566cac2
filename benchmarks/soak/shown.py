"""What a long run says: a line now and then, tables that are Markdown at the end, and the chart."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.arrival import quantiles
from benchmarks.chart import Panel, course
from benchmarks.report import table
from benchmarks.soak.level import Bound, Thirds
from benchmarks.soak.samples import Sample

# Medians of thirds may differ by so much; `level` says why. Memory and sizes in MB.
PROCESS = Bound(share=0.10, amount=8.0)
STORED = Bound(share=0.15, amount=4.0)
DEAD = Bound(share=1.0, amount=20_000.0)
LOG, DEAD_ROWS = "the log and all other tables, MB", "dead rows in all of them"
_MEMORY = "{}, MB"
# Chart lines have at most so many points.
_POINTS = 120


@dataclass(frozen=True, slots=True)
class Minute:
    """The figures of the time since the last line. `took`: milliseconds from commit to socket."""

    sample: Sample
    took: dict[str, float]
    cpu: dict[str, float]
    written: float
    received: float

    def line(self) -> str:
        one = self.sample
        parts = "; ".join(
            f"{name} {used.memory:.0f} MB {self.cpu[name]:.0f} %"
            for name, used in (one.parts | one.own).items()
        )
        times = (
            "p50 {p50:.1f} p99 {p99:.1f} max {max:.0f} ms".format(**self.took)
            if self.took
            else "no change"
        )
        return (
            f"{one.at / 60:5.1f} min: {times}; lag {one.backlog:,} changes, {one.lag_ms} ms; "
            f"log {one.log_mb:.1f} MB, {one.dead:,} dead rows; {self.written:,.0f} written and "
            f"{self.received:,.0f} received a second; {parts}\n"
        )


def between(
    earlier: Sample, later: Sample, took: Sequence[float], written: int, received: int
) -> Minute:
    """The figures of the time between two samples, in which so much was written and received."""
    seconds = later.at - earlier.at
    before = earlier.parts | earlier.own
    cpu = {
        name: 100 * (used.cpu - before[name].cpu) / seconds
        for name, used in (later.parts | later.own).items()
    }
    times = quantiles(list(took)) if len(took) > 1 else {}
    return Minute(later, times, cpu, written / seconds, received / seconds)


def series(samples: Sequence[Sample]) -> dict[str, list[tuple[float, float]]]:
    """Each measured value over time, for `level` and the chart."""
    found: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        values = {_MEMORY.format(name): used.memory for name, used in sample.parts.items()}
        values |= {
            _MEMORY.format(one.name): (one.table + one.indexes) / 2**20 for one in sample.stored
        }
        values |= {LOG: sample.log_mb, DEAD_ROWS: float(sample.dead)}
        for name, value in values.items():
            found.setdefault(name, []).append((sample.at, value))
    return found


def bounds(sample: Sample) -> dict[str, Bound]:
    """What is to be level: every part of the deployment but the benchmark itself, and every table
    with its partitions."""
    return {
        LOG: STORED,
        **{_MEMORY.format(one.name): STORED for one in sample.stored},
        DEAD_ROWS: DEAD,
        **{_MEMORY.format(name): PROCESS for name in sample.parts},
    }


def table_of_thirds(found: Sequence[Thirds]) -> str:
    """Markdown: what was level, with its medians. Tables that stayed below a megabyte are left
    out."""
    digits = {True: 0, False: 1}
    rows = [
        [one.what, *(f"{value:,.{digits[one.last > 1_000]}f}" for value in _medians(one))]
        for one in found
        if not one.level or max(one.first, one.middle, one.last) >= 1
    ]
    return table(["after the warm-up", "first third", "second", "last", "allowed"], rows)


def _medians(one: Thirds) -> tuple[float, float, float, float]:
    return one.first, one.middle, one.last, one.most


def table_of_run(minutes: Sequence[Minute], facts: Mapping[str, str]) -> str:
    """Markdown: what the whole run was, and the median of its lines."""
    rows = [[name, value] for name, value in facts.items()]
    for key in ("p50", "p99", "max"):
        values = [one.took[key] for one in minutes if one.took]
        if values:
            told = f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}"
            rows.append([f"commit to socket, ms, {key} of half a minute", told])
    for name in minutes[-1].cpu if minutes else ():
        shares = [one.cpu[name] for one in minutes]
        told = f"{min(shares):.1f} / {statistics.median(shares):.1f} / {max(shares):.1f}"
        rows.append([f"CPU of {name}, % of a core", told])
    return table(["the run", "least / median / most, or in all"], rows)


def chart(samples: Sequence[Sample], minutes: Sequence[Minute]) -> list[Panel]:
    every = series(samples)
    times = {
        key: [(one.sample.at / 60, one.took[key]) for one in minutes if one.took]
        for key in ("p99", "p50")
    }
    stored = {name: every[_MEMORY.format(name)] for name in _largest(samples)}
    memory = {name: every[_MEMORY.format(name)] for name in samples[-1].parts}
    return [
        course("From commit to socket", times, "minutes", "milliseconds"),
        course("Tables of the log on disk", _thinned(stored), "minutes", "MB"),
        course("Memory of each part", _thinned(memory), "minutes", "MB"),
    ]


def _largest(samples: Sequence[Sample]) -> list[str]:
    """The tables that take the most."""
    sizes = {one.name: one.table + one.indexes for one in samples[-1].stored}
    return sorted(sizes, key=lambda name: -sizes[name])[:3]


def _thinned(
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for name, points in lines.items():
        step = max(1, len(points) // _POINTS)
        found[name] = [(at / 60, value) for at, value in itertools.islice(points, 0, None, step)]
    return found


def kept(samples: Sequence[Sample], minutes: Sequence[Minute]) -> dict[str, Any]:
    """Every figure, for JSON."""
    return {
        "samples": [asdict(sample) for sample in samples],
        "lines": [asdict(minute) for minute in minutes],
    }
