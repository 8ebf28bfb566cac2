"""The cost of capture for writers, and the time until changes arrive: `python -m
benchmarks.writes`.

On SQLite and on PostgreSQL (a temporary server, as in the tests; fsync is off there, so the share
of capture is larger than on a disk):

* capture: single and bulk writes with the triggers and without them, on the same table in the same
  run, in alternation; see benchmarks/capture.py.
* durable (PostgreSQL): the same with fsync on, as PostgreSQL is installed, so that each commit
  waits for the disk.
* numbering (PostgreSQL): changes per second, compared with a plain UPDATE; see
  benchmarks/numbering.py.
* database WAL (PostgreSQL): bytes of PostgreSQL's own write-ahead log for each change, by what
  happens to it; see benchmarks/database_wal.py.
* arrival: milliseconds from before the write to the frame, at some rates of change, with many
  sockets that get a share of the changes each; see benchmarks/arrival.py.
* idle: percent of a core that a server with those sockets uses while no row is written, with its
  tailer and without.

Each vendor is measured in a process of its own, and so is the PostgreSQL whose commits wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import arrival, database_wal, numbering
from benchmarks.capture import CAPTURED, PLAIN, capture, goal_of
from benchmarks.chart import Panel, bars, groups, spans
from benchmarks.databases import VENDORS, url_of
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table
from tests.acceptance.support.server import environment, make_database, running

PARTS = ("capture", "durable", "numbering", "wal", "arrival", "idle")
# A server by itself, which only the durable part uses.
DURABLE = "durable"
SERVERS = {**VENDORS, DURABLE: "PostgreSQL with fsync"}
TAILING, NOT_TAILING = "with its tailer", "without one"
QUANTILES = ("p50", "p95", "p99")

# The figures of a vendor's process, by part.
Found = dict[str, Any]


# --- one vendor, in a process of its own ----------------------------------------------------------


def measure_capture(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    import django

    django.setup()
    return capture(arguments.rounds, arguments.single, arguments.bulk, arguments.many)


def measure_numbering(arguments: argparse.Namespace) -> dict[str, list[float]]:
    import django

    django.setup()
    options = argparse.Namespace(
        rounds=arguments.rounds, entries=arguments.entries, batch=1_000, open=False, really=True
    )
    return numbering.measure(options)["changes_per_second"]


def measure_wal(arguments: argparse.Namespace) -> dict[str, list[float]]:
    import django

    django.setup()
    return database_wal.measure(arguments.rounds, arguments.entries)


async def measure_server(database: Path, arguments: argparse.Namespace) -> Found:
    found: Found = {}
    with running(database, arguments.server) as server:
        sockets = await arrival.listeners(server, arguments.sockets)
        if "idle" in arguments.only:
            # This server is only measured while idle, so it ends before rows are written.
            with running(database, arguments.server, {"TAILER": "external"}) as other:
                more = await arrival.listeners(other, arguments.sockets)
                both = {TAILING: server, NOT_TAILING: other}
                found["idle"] = await arrival.idle(
                    both, [*sockets, *more], arguments.rounds, arguments.seconds
                )
                await asyncio.gather(*[socket.close() for socket in more])
        if "arrival" in arguments.only:
            by_rate: dict[str, list[dict[str, float]]] = {}
            for _ in range(arguments.rounds):
                for rate in arguments.rates:
                    took = await arrival.arrival(server, sockets, rate, arguments.seconds)
                    by_rate.setdefault(str(rate), []).append(took)
            found["arrival"] = by_rate
        await asyncio.gather(*[socket.close() for socket in sockets])
    return found


def measure_durable(arguments: argparse.Namespace) -> Found:
    """Measure capture alone, on a server whose commits wait for the disk."""
    with (
        tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder,
        url_of("postgresql", folder, durable=True),
    ):
        os.environ.update(environment(make_database(Path(folder) / "bench.sqlite3")))
        found = {"capture": measure_capture(arguments)}
        from django.db import connections

        connections.close_all()
    return found


def measure(vendor: str, arguments: argparse.Namespace) -> Found:
    """Measure in this process, whose environment names the database."""
    if vendor == DURABLE:
        return measure_durable(arguments)
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder, url_of(vendor, folder):
        database = make_database(Path(folder) / "bench.sqlite3")
        os.environ.update(environment(database))
        if {"arrival", "idle"} & set(arguments.only):
            found |= asyncio.run(measure_server(database, arguments))
        if "capture" in arguments.only:
            found["capture"] = measure_capture(arguments)
        if "numbering" in arguments.only and vendor == "postgresql":
            found["numbering"] = measure_numbering(arguments)
        if "wal" in arguments.only and vendor == "postgresql":
            found["wal"] = measure_wal(arguments)
        from django.apps import apps
        from django.db import connections

        if apps.ready:
            connections.close_all()
    return found


# --- all ------------------------------------------------------------------------------------------


def tables(found: Found, vendor: str) -> None:
    def told(head: list[str], rows: list[list[str]]) -> None:
        if rows:
            say("\n" + table([f"{vendor}: min / median / max", *head], rows))

    deeds = found.get("capture", {})
    states = (PLAIN, CAPTURED)
    rows = [[name, *(spread(took[state], 1) for state in states)] for name, took in deeds.items()]
    told(["µs a row, plain", CAPTURED], rows)
    numbered = found.get("numbering", {})
    told(["changes a second"], [[name, spread(rates)] for name, rates in numbered.items()])
    written = found.get("wal", {})
    told(["bytes a change"], [[name, spread(sizes)] for name, sizes in written.items()])
    rows = []
    for rate, rounds in found.get("arrival", {}).items():
        quantiles = [spread([one[key] for one in rounds], 1) for key in QUANTILES]
        written = spread([one["per_second"] for one in rounds])
        rows.append([f"arrival at {int(rate):,} changes a second", *quantiles, written])
    told([*(f"{key}, ms" for key in QUANTILES), "written a second"], rows)
    idles = found.get("idle", {})
    told(["idle, % of a core"], [[name, spread(values, 2)] for name, values in idles.items()])


def compared(found: Found, vendor: str) -> list[Comparison]:
    comparisons = [
        Comparison(
            f"time, {vendor}, {name}",
            CAPTURED,
            PLAIN,
            ratios(took[CAPTURED], took[PLAIN]),
            None if vendor == VENDORS["sqlite"] else goal_of(name),
        )
        for name, took in found.get("capture", {}).items()
    ]
    if "numbering" in found:
        comparisons += numbering.compared(found["numbering"], f", {vendor}")
    if "idle" in found:
        by_round = ratios(found["idle"][TAILING], found["idle"][NOT_TAILING])
        comparisons.append(Comparison(f"idle CPU, {vendor}", TAILING, NOT_TAILING, by_round))
    return comparisons


def drawn(results: Mapping[str, Found], sockets: int) -> list[Panel]:
    panels = []
    middle = statistics.median
    for vendor, found in results.items():
        if "capture" in found:
            deeds = {
                name: {state: middle(took[state]) for state in (PLAIN, CAPTURED)}
                for name, took in found["capture"].items()
            }
            title = f"What capture costs a writer, {SERVERS[vendor]}"
            panels.append(groups(title, deeds, "microseconds a row", ours=CAPTURED))
        if "wal" in found:
            sizes = {name: middle(values) for name, values in found["wal"].items()}
            title = f"Bytes that {VENDORS[vendor]} writes to its own log for a change"
            panels.append(bars(title, sizes, "bytes", ours=database_wal.ALL))
    arrivals = {
        f"{VENDORS[vendor]}, {int(rate):,} a second": {
            key: middle([one[key] for one in rounds]) for key in QUANTILES
        }
        for vendor, found in results.items()
        for rate, rounds in found.get("arrival", {}).items()
    }
    if arrivals:
        title = f"From the write to the frame, {sockets:,} sockets"
        panels.append(spans(title, arrivals, "milliseconds"))
    idles = {
        VENDORS[vendor]: {name: middle(values) for name, values in found["idle"].items()}
        for vendor, found in results.items()
        if "idle" in found
    }
    if idles:
        title = f"An idle server with {sockets:,} sockets"
        panels.append(groups(title, idles, "% of a core", ours=TAILING))
    return panels


def in_a_process(vendor: str, arguments: argparse.Namespace) -> Found:
    """Run this program for one vendor. It writes its figures to a file."""
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        answer = Path(folder) / "found.json"
        inside = ["--inside", vendor, "--json", str(answer)]
        # The last option of a name counts.
        command = [sys.executable, "-m", "benchmarks.writes", *sys.argv[1:], *inside]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{SERVERS[vendor]} could not be measured; what it said is above")
        found: Found = json.loads(answer.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--vendors", nargs="+", choices=VENDORS, default=list(VENDORS))
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--single", type=int, default=300, help="rows of the single writes")
    parser.add_argument("--bulk", type=int, default=5_000, help="rows of the bulk writes")
    parser.add_argument("--many", type=int, default=20_000, help="rows of the one INSERT of many")
    parser.add_argument(
        "--entries", type=int, default=100_000, help="changes to number, a multiple of 4,000"
    )
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--rates", nargs="+", type=int, default=(100, 500, 2_000))
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="for each rate, and idle, a round"
    )
    add_options(parser, rounds=5)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        arguments.json.write_text(json.dumps(measure(arguments.inside, arguments)))
        return
    results: dict[str, Found] = {}
    comparisons: list[Comparison] = []
    parts = set(arguments.only)
    servers = list(arguments.vendors) if parts - {DURABLE} else []
    if DURABLE in parts and "postgresql" in arguments.vendors:
        servers.append(DURABLE)
    for server in servers:
        results[server] = in_a_process(server, arguments)
        tables(results[server], SERVERS[server])
        comparisons += compared(results[server], SERVERS[server])
    conclude(arguments, results, comparisons, drawn(results, arguments.sockets))


if __name__ == "__main__":
    main()
