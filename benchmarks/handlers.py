"""Handlers under failures, and how fast they are: `python -m benchmarks.handlers`.

Sixteen writers change items while workers are killed and paused at random and, on PostgreSQL, the
database and Redis are restarted and crash. Seven handlers run: counting, copying a table, failing
now and then, in batches, by key with concurrency, async, and one that never masters some changes.
In the end copies must be equal, counts exact, the order kept, and what was done outside the
database done at least once, always by the same delivery id. The exit code is 1 otherwise.

With --throughput figures are taken instead, on PostgreSQL with a worker: changes a second through
one batched handler that copies rows, from a backlog, and the time from an INSERT (before it is
sent) to the handler at a steady rate. Goals: 5,000 changes a second, and 50 ms for 95 of 100.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.arrival import quantiles
from benchmarks.report import Promise, add_files, conclude, say, spread, table, table_of_promises
from tests.acceptance.support.server import ROOT
from tests.acceptance.support.torture import Torture, run, tortured
from tests.support import postgres, redis
from tests.support.postgres import Postgres
from tests.support.redis import Redis
from tests.support.waiting import until
from tests.torture import names

PATIENCE = 300.0
CHANGES_A_SECOND, P95_MS = 5_000.0, 50.0
# Of each writer between two transactions, and between two failures.
PAUSE, EVERY, LONGEST_PAUSE = 0.6, 2.0, 40.0
# In one INSERT of the backlog.
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Speed:
    """Changes a second of each round, and milliseconds to the handler of each round."""

    throughput: list[float]
    latency: list[dict[str, float]]


def world(stack: ExitStack, vendor: str, seed: int, *handlers: str) -> Torture:
    """A database of its own, migrated, with nothing running yet."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rowcast-handlers-")))
    servers: tuple[Postgres | None, Redis | None] = (None, None)
    if vendor == "postgresql":
        servers = (
            stack.enter_context(postgres.running()),
            stack.enter_context(redis.running_ours(folder)),
        )
    made = Torture(folder, *servers, seed, handlers or names.TORTURED)
    return stack.enter_context(tortured(made))


# --- failures -------------------------------------------------------------------------------------


def torture(vendor: str, arguments: argparse.Namespace) -> Promise:
    what = f"every change once and in order, on {vendor}"
    with ExitStack() as stack:
        torture = world(stack, vendor, arguments.seed)
        run(torture, arguments.minutes * 60, EVERY, LONGEST_PAUSE, arguments.pause)
        try:
            torture.settle(PATIENCE)
            found = torture.check()
        except AssertionError as error:
            return Promise(what, str(error), False)
        return Promise(what, ", ".join(f"{n:,} {name}" for name, n in found.items()), True)


# --- figures --------------------------------------------------------------------------------------


def throughput(torture: Torture, count: int) -> float:
    """Changes a second of the batched handler, for changes that are numbered already."""
    torture.tailer.start()
    for start in range(0, count, _AT_ONCE):
        torture.orm.sql(
            'INSERT INTO torture_item ("group", value, text, written_ns)'
            " SELECT n %% 20, n, 'item ' || n, 0 FROM generate_series(%s::int, %s::int) AS n",
            [start, start + _AT_ONCE - 1],
        )
    until(lambda: not torture.orm.backlog(), "the numbers", patience=PATIENCE, every=0.1)
    torture.work()
    # The start of a worker is not in the figure: the time runs from the first batch on.
    first = until(lambda: copied(torture), "a batch", patience=PATIENCE)
    began = time.perf_counter()
    until(lambda: copied(torture) == count, "all copies", patience=PATIENCE, every=0.01)
    return (count - first) / (time.perf_counter() - began)


def copied(torture: Torture) -> int:
    ((found,),) = torture.orm.sql("SELECT count(*) FROM torture_copy")
    return int(found)


def latency(torture: Torture, rate: int, seconds: int) -> dict[str, float]:
    """Milliseconds from just before an INSERT to its handler."""
    torture.start(workers=1)
    torture.outside.touch()
    torture.orm.sql(
        "INSERT INTO torture_item (\"group\", value, text, written_ns) VALUES (0,0,'',0)"
    )
    until(torture.outside.read_text, "the worker", patience=PATIENCE)
    arguments = [str(rate), str(seconds), "steady"]
    subprocess.run(
        [sys.executable, "-m", "tests.torture.writers", *arguments],
        cwd=ROOT,
        env={**torture.env, "ROWCAST_SERVES": "nothing"},
        check=True,
    )
    wanted = rate * seconds + 1

    def lines() -> list[str]:
        return torture.outside.read_text().splitlines()

    until(lambda: len(lines()) == wanted, "all changes", patience=PATIENCE, every=0.2)
    # Without those of the first second.
    return quantiles([int(line.split()[1]) / 1e6 for line in lines()[1 + rate :]])


def speed(arguments: argparse.Namespace) -> Speed:
    found = Speed([], [])
    for _ in range(arguments.rounds):
        with ExitStack() as stack:
            fast = world(stack, "postgresql", 0, names.FAST)
            found.throughput.append(throughput(fast, arguments.changes))
        with ExitStack() as stack:
            prompt = world(stack, "postgresql", 0, names.PROMPT)
            found.latency.append(latency(prompt, arguments.rate, arguments.seconds))
    return found


def say_speed(found: Speed) -> list[Promise]:
    head = ["min / median / max of the rounds", "found", "goal"]
    of_rounds = [one["p95"] for one in found.latency]
    middle, p95 = statistics.median(found.throughput), statistics.median(of_rounds)
    rows = [
        ["changes a second, one batched handler", spread(found.throughput), "5,000"],
        ["INSERT to handler, p50, ms", spread([one["p50"] for one in found.latency], 1), ""],
        ["INSERT to handler, p95, ms", spread(of_rounds, 1), "50"],
        ["INSERT to handler, p99, ms", spread([one["p99"] for one in found.latency], 1), ""],
    ]
    say(table(head, rows))
    return [
        Promise(
            f"{CHANGES_A_SECOND:,.0f} changes a second through one batched handler",
            f"{middle:,.0f}",
            middle >= CHANGES_A_SECOND,
        ),
        Promise(f"p95 within {P95_MS:.0f} ms", f"{p95:.1f} ms", p95 <= P95_MS),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vendor", choices=("sqlite", "postgresql"), help="one database only")
    parser.add_argument("--minutes", type=float, default=10.0, help="of writing and failures")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds, of each writer")
    parser.add_argument("--seed", type=int, help="of what happens")
    parser.add_argument("--throughput", action="store_true", help="figures instead of failures")
    parser.add_argument("--rounds", type=int, default=3, help="of figures")
    parser.add_argument("--changes", type=int, default=50_000, help="of the backlog")
    parser.add_argument("--rate", type=int, default=200, help="changes a second")
    parser.add_argument("--seconds", type=int, default=20, help="at that rate")
    add_files(parser)
    arguments = parser.parse_args()
    results: dict[str, Any]
    if arguments.throughput:
        found = speed(arguments)
        promises, results = say_speed(found), asdict(found)
    else:
        if arguments.seed is None:
            arguments.seed = random.randrange(1_000_000)
        vendors = [arguments.vendor] if arguments.vendor else ["sqlite", "postgresql"]
        promises = [torture(vendor, arguments) for vendor in vendors]
        results = {promise.what: promise.seen for promise in promises}
    say("\n" + table_of_promises(promises))
    conclude(arguments, results, [], [])
    return 0 if all(promise.kept for promise in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
