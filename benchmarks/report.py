"""What every benchmark says in the same way: spreads, tables of ratios, the machine, JSON, a chart.

Measures nothing, knows no contestant and no Django.
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
    """How many times as much as the other, a ratio a round."""

    of: str
    ours: str
    theirs: str
    ratios: list[float]
    # At least so many times, where there is a goal.
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


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: both were measured within the same minutes. A round that only one of them
    has, since the other failed in it, is none."""
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def of(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def spread(values: Sequence[float], digits: int = 0) -> str:
    """min / median / max"""
    return " / ".join(f"{value:,.{digits}f}" for value in of(values).values())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads in a terminal and can be put into a document as it is."""
    wide = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, wide, strict=True))} |\n"

    rule = f"| {' | '.join('-' * w for w in wide)} |\n"
    return line(head) + rule + "".join(map(line, rows))


def table_of_ratios(comparisons: Sequence[Comparison]) -> str:
    """Ours, the named other, the goal if there is one, and how many times as much it was."""

    def row(one: Comparison) -> list[str]:
        most = max(one.ratios)
        found = spread(one.ratios, 2 if most < 20 else 1 if most < 200 else 0)
        goal = "" if one.goal is None else f"{one.goal:g}"
        return [one.of, one.ours, one.theirs, goal, found]

    head = ["times as much", "ours", "the other", "goal", "min / median / max"]
    return table(head, [row(one) for one in comparisons])


def machine() -> dict[str, Any]:
    """Where and on what it ran."""
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
    """What the servers and the compiler that a benchmark may start say of their versions."""
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
    """At once, also into a file or a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """What every program takes."""
    parser.add_argument("--rounds", type=_at_least_one, default=rounds)
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
    """All that is known of a run."""
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("json", "chart") and value is not None
    }
    return {
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
    """Prints the ratios, and writes what was asked for."""
    if comparisons:
        say("\n" + table_of_ratios(comparisons))
    if arguments.json:
        found = record(arguments, results, comparisons)
        found["machine"]["programs"] = programs()
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.chart and panels:
        arguments.chart.write_text(page(*panels))
