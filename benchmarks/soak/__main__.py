"""A whole deployment for half an hour, under steady writes: `python -m benchmarks.soak`.

PostgreSQL, Redis, two servers (uvicorn with the fast path), a tailer that leads and one that stands
by, and a worker that prunes, all real processes on this machine. Writers make `--rate` changes a
second (`writers.py`). Readers (`readers.py`) listen through policies and filters, come and go and
resume, stop reading for a while, or keep the set of rows from a snapshot on; some members are
present and broadcast. Every half minute one line says how long changes took from commit to socket,
what waits, what the log takes on disk, and the memory and CPU time of every part.

It must lose nothing and double nothing, for any reader; and after the warm-up nothing may grow: not
the tables with their indexes, not the memory of any part (`level.py`, bounds in `shown.py`). The
warm-up lasts until the log was pruned several times and the events in memory are as many as they
may be: RING_SIZE is set to those of twenty seconds, or of a quarter of a retention that is shorter,
and at most its default of 10,000. Otherwise the exit code is 1 and the last table names what was
lost or grew.

Times are taken at two sockets, one on each server, which get every change. They contain the time of
the one process of all readers. An idle process says how late the machine itself was (`idle.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.arrival import quantiles
from benchmarks.report import Promise, add_files, conclude, say, table_of_promises
from benchmarks.soak import shown
from benchmarks.soak.level import Thirds, thirds
from benchmarks.soak.run import Run
from tests.acceptance.support.base_databases import base_database
from tests.acceptance.support.deployment import Deployment, deployed
from tests.acceptance.support.worlds import create_usual_policies
from tests.support import redis as redises

OWNERS = 20
RING_SECONDS, RING_LEAST, RING_MOST = 20.0, 100, 10_000
# The leader prunes for the first time after a minute.
FIRST_PRUNING = 60.0


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """REALTIME of the deployment."""
    # Shorter than the longest absence, so that resumes are read from the log too.
    seconds = min(RING_SECONDS, arguments.retention * 60 / 4)
    return {
        "RETENTION": {"minutes": arguments.retention},
        "RING_SIZE": max(RING_LEAST, min(RING_MOST, int(arguments.rate * seconds))),
    }


def warm_up(arguments: argparse.Namespace) -> float:
    """Seconds until sizes are to be level: after the first pruning and another retention period,
    and half a minute for memory."""
    retention: float = arguments.retention * 60
    return max(FIRST_PRUNING, retention) + retention + 30


def measure(arguments: argparse.Namespace) -> tuple[Run, list[Promise], list[Thirds]]:
    with tempfile.TemporaryDirectory(prefix="rowcast-soak-") as name:
        folder = Path(name)
        with base_database() as base, redises.running(folder) as redis:
            layer = "pubsub"
            given = folder, base.database(), redis, layer, settings(arguments)
            with deployed(Deployment(*given)) as world:
                create_usual_policies(world.orm)
                owners = [world.orm.user(f"owner {number}") for number in range(OWNERS)]
                world.start("fanout", "fanout", tailers=2)
                world.work()
                run = Run(world, base, owners, arguments)
                leader = world.leader().name
                asyncio.run(run.run())
                if world.leader().name != leader:
                    say(f"{leader} did not lead to the end\n")
                found = thirds(
                    shown.series(run.samples),
                    warm_up(arguments),
                    shown.bounds(run.samples[-1]),
                )
                promises = run.promises(found)
                if not all(each.kept for each in promises):
                    say(f"\nThe ends of all logs:\n{world.logs}\n")
    return run, promises, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=500, help="changes a second; 500")
    parser.add_argument(
        "--retention", type=float, metavar="MINUTES", help="RETENTION; a tenth of the run"
    )
    add_files(parser)
    arguments = parser.parse_args()
    if arguments.retention is None:
        arguments.retention = round(max(0.4, arguments.minutes / 10), 2)
    run, promises, found = measure(arguments)
    late = quantiles(run.lateness)
    minutes = run.minutes
    facts = {
        "minutes; changes a second; retention in minutes": (
            f"{arguments.minutes:g}; {arguments.rate:,}; {arguments.retention:g}"
        ),
        "changes written; received by all readers": f"{run.written:,}; {run.received:,}",
    }
    facts |= {name: f"{count:,}" for name, count in sorted(run.notes.counts.items())}
    facts["tracks, untracks, broadcasts and reconnects of members"] = f"{run.presence.total():,}"
    facts["an idle process was late, ms, p50, p99, max"] = " / ".join(
        f"{late[key]:.1f}" for key in ("p50", "p99", "max")
    )
    say(f"\n{shown.table_of_run(minutes, facts)}\n{shown.table_of_thirds(found)}")
    say(f"\n{table_of_promises(promises)}")
    results = {
        **shown.kept(run.samples, minutes),
        "thirds": [asdict(one) for one in found],
        "counts": run.notes.counts,
        "presence": run.presence,
        "idle_ms": late,
    }
    conclude(arguments, results, [], shown.chart(run.samples, minutes))
    sys.exit(not all(each.kept for each in promises))


if __name__ == "__main__":
    main()
