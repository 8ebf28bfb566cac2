"""The cost of row-level security with many subscriptions: `python -m benchmarks.rls`.

* matching: one change and 100 to 100,000 subscriptions, of which it always matches ten: by owner
  (`owner_id == $user.id`) and by membership (`team_id` in a select of the subject's teams).
* operators: one change against 10,000 subscriptions whose filters all differ, by operator. Those
  that name a value are found by it, the others are looked at one by one.
* worst case: 100,000 filters that no value finds, through the dispatcher, with a heartbeat beside
  it: how long one change takes, and how long the heartbeat had to wait.
* memberships: 10,000 subjects of 50 teams each, from a database: memory, and what one membership
  inserted or deleted costs. It is compared, alternately, with binding every subscription anew and
  reading every set again, which is what an edit of a policy still costs.
* own rows: 100,000 users join, each for rows of their own, as holders of a permission; none of them
  is known before.

Each is run in several rounds; what is delivered is checked in every part. The database is a SQLite
file of its own. --scale 0.1 runs a tenth of everything.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
from typing import Any

from benchmarks.chart import Panel, lines, spans
from benchmarks.databases import django_on_sqlite
from benchmarks.live_changes import MOVED, REBOUND, fill, memberships, own_rows, worst_case
from benchmarks.matching import MATCHES, MATCHING_ALL, by_membership, by_operator, by_owner
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table

SIZES = (100, 1_000, 10_000, 100_000)
KINDS = {"by owner": by_owner, "by membership": by_membership}
LOOKED_UP = "eq"
FEW = 100

Rounds = list[float]


def of_scale(count: int, scale: float) -> int:
    return max(int(count * scale), FEW)


def shown(operator: str) -> str:
    return f"{operator}, which matches all" if operator in MATCHING_ALL else operator


async def through_the_dispatcher(arguments: argparse.Namespace) -> dict[str, dict[str, Rounds]]:
    from realtime.util.database_threads import close_connections

    scale, rounds = arguments.scale, arguments.rounds
    try:
        return {
            "memberships": await memberships(of_scale(10_000, scale), rounds),
            "worst_case": await worst_case(of_scale(100_000, scale), rounds),
            "own_rows": await own_rows(of_scale(100_000, scale), rounds),
        }
    finally:
        await close_connections()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = [size for size in SIZES if size <= of_scale(SIZES[-1], arguments.scale)]
    matching: dict[str, dict[int, Rounds]] = {name: {n: [] for n in sizes} for name in KINDS}
    operators: dict[str, Rounds] = {}
    for _ in range(arguments.rounds):
        for name, run in KINDS.items():
            for size in sizes:
                matching[name][size].append(run(size))
        for name, took in by_operator(of_scale(10_000, arguments.scale)).items():
            operators.setdefault(name, []).append(took)
    gc.collect()
    fill(of_scale(10_000, arguments.scale))
    found: dict[str, Any] = {"matching_us": matching, "operators_us": operators}
    return found | asyncio.run(through_the_dispatcher(arguments))


def tables(found: dict[str, Any], scale: float) -> None:
    matching = found["matching_us"]
    sizes = list(next(iter(matching.values())))
    head = [f"one change that {MATCHES} match, µs", *(f"{size:,} subscriptions" for size in sizes)]
    rows = [[name, *(spread(took[size]) for size in sizes)] for name, took in matching.items()]
    say(table(head, rows))
    filters = f"one change against {of_scale(10_000, scale):,} filters that differ, µs"
    rows = [[shown(name), spread(took, 1)] for name, took in found["operators_us"].items()]
    say("\n" + table([filters, "min / median / max"], rows))
    for name, count in (("memberships", 10_000), ("worst_case", 100_000), ("own_rows", 100_000)):
        title = f"{name.replace('_', ' ')}, {of_scale(count, scale):,} channels"
        rows = [[what, spread(values, 2)] for what, values in found[name].items()]
        say("\n" + table([title, "min / median / max"], rows))


def compared(found: dict[str, Any]) -> list[Comparison]:
    comparisons = []
    for name, took in found["matching_us"].items():
        few, many = min(took), max(took)
        if few < many:
            by_round = ratios(took[many], took[few])
            said = f"time a change, {name}"
            comparisons.append(Comparison(said, f"{many:,} subscriptions", f"{few:,}", by_round))
    operators = found["operators_us"]
    comparisons += [
        Comparison("speed, by operator", LOOKED_UP, shown(name), ratios(took, operators[LOOKED_UP]))
        for name, took in operators.items()
        if name != LOOKED_UP
    ]
    moved, rebound = (found["memberships"][what] for what in (MOVED, REBOUND))
    one, other = "its own set kept current", "every channel bound anew"
    comparisons.append(Comparison("speed, one membership", one, other, ratios(rebound, moved)))
    return comparisons


def drawn(found: dict[str, Any], scale: float) -> list[Panel]:
    middle = statistics.median
    matching = {
        name: {float(size): middle(values) for size, values in took.items()}
        for name, took in found["matching_us"].items()
    }
    operators = {shown(name): {"µs": middle(took)} for name, took in found["operators_us"].items()}
    changes = {
        what.removesuffix(", ms"): {"ms": middle(found["memberships"][what])}
        for what in (MOVED, REBOUND)
    }
    many = of_scale(10_000, scale)
    return [
        lines(
            f"One change that {MATCHES} subscriptions match",
            matching,
            "subscriptions",
            "microseconds a change",
            ours="by owner",
        ),
        spans(f"One change against {many:,} filters that differ", operators, "microseconds"),
        spans(f"A membership changes, {many:,} subjects", changes, "milliseconds"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be more than 0 and at most 1")
    with django_on_sqlite():
        found = measure(arguments)
    tables(found, arguments.scale)
    conclude(arguments, found, compared(found), drawn(found, arguments.scale))


if __name__ == "__main__":
    main()
