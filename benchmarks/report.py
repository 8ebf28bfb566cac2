"""The output of benchmarks: spreads, tables of ratios, the machine, JSON, and charts.

Measures nothing and needs no Django.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.chart import Panel, page
from tests.support import postgres, redis

PACKAGES = (
    "channels",
    "channels-redis",
    "daphne",
    "Django",
    "msgspec",
    "psycopg",
    "redis",
    "Twisted",
    "uvicorn",
    "websockets",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratio of our figure to another one, for each round."""

    of: str
    ours: str
    theirs: str
    ratios: list[float]
    # The goal of the ratio, if there is one.
    goal: float | None = None

    def kept(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "ours": self.ours,
            "theirs": self.theirs,
            "goal": self.goal,
            **of(self.ratios),
            "ratios": self.ratios,
        }


@dataclass(frozen=True, slots=True)
class Promise:
    """What was to be, what was, and whether that is as promised."""

    what: str
    seen: str
    kept: bool


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of each round, in which both were measured within the same minutes. A round in
    which one of them failed is left out."""
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def of(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def spread(values: Sequence[float], digits: int = 0) -> str:
    """min / median / max"""
    return " / ".join(f"{value:,.{digits}f}" for value in of(values).values())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that is readable in a terminal and valid Markdown."""
    wide = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, wide, strict=True))} |\n"

    rule = f"| {' | '.join('-' * w for w in wide)} |\n"
    return line(head) + rule + "".join(map(line, rows))


def table_of_ratios(comparisons: Sequence[Comparison]) -> str:
    """A table of our figures, the others, the ratios, and the goals if there are some."""

    def row(one: Comparison) -> list[str]:
        most = max(one.ratios)
        found = spread(one.ratios, 2 if most < 20 else 1 if most < 200 else 0)
        goal = "" if one.goal is None else f"{one.goal:g}"
        return [one.of, one.ours, one.theirs, goal, found]

    head = ["times as much", "ours", "the other", "goal", "min / median / max"]
    return table(head, [row(one) for one in comparisons])


def table_of_promises(promises: Sequence[Promise]) -> str:
    """A table that says PASS or FAIL of each."""
    rows = [["PASS" if each.kept else "FAIL", each.what, each.seen] for each in promises]
    return table(["", "promise", "seen"], rows)


def machine() -> dict[str, Any]:
    """The machine, and the versions of Python and packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": found,
    }


def programs() -> dict[str, str]:
    """The versions of the servers and the compiler that a benchmark may start."""
    folder = postgres.programs()
    commands = {
        "postgresql": [str(folder / "postgres") if folder else "postgres", "--version"],
        "redis": [redis.program() or "redis-server", "--version"],
        "nginx": [shutil.which("nginx", path="/usr/sbin") or "nginx", "-v"],
        "node": ["node", "--version"],
        "cc": ["cc", "--version"],
    }
    found = {}
    for name, command in commands.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        said = (done.stdout or done.stderr).strip()
        found[name] = said.splitlines()[0] if said else ""
    return found


def say(text: str) -> None:
    """Print a text at once, also into a file or a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add the options of every benchmark of several rounds."""
    parser.add_argument("--rounds", type=_at_least_one, default=rounds)
    add_files(parser)


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options of what a benchmark writes beside what it says."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every figure")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw them")


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def record(
    arguments: argparse.Namespace, results: object, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """The machine, the arguments, the results and the ratios of a run."""
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("json", "chart") and value is not None
    }
    return {
        # The module that was run: python -m benchmarks.NAME.
        "benchmark": Path(sys.argv[0]).stem,
        "machine": machine(),
        "arguments": given,
        "results": results,
        "ratios": [one.kept() for one in comparisons],
    }


def conclude(
    arguments: argparse.Namespace,
    results: object,
    comparisons: Sequence[Comparison],
    panels: Sequence[Panel],
) -> None:
    """Print the ratios, and write the files that the options name."""
    if comparisons:
        say("\n" + table_of_ratios(comparisons))
    if arguments.json:
        found = record(arguments, results, comparisons)
        found["machine"]["programs"] = programs()
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.chart and panels:
        arguments.chart.write_text(page(*panels))
