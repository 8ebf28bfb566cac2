"""What capture costs a writer, and how fast it arrives: `python -m benchmarks.writes`.

On SQLite and on PostgreSQL (a server of its own, as the tests have; fsync is off there, which makes
the share of capture larger than it is on a disk):

* capture: single and bulk writes with the triggers and without them, on the same table in the same
  run, in turns, so that both see the same machine. Medians of the rounds.
* numbering (PostgreSQL): changes a second, see benchmarks/numbering.py.
* arrival: milliseconds from before the write to the frame, at some rates of change, with many
  sockets of which each is concerned by its share; see benchmarks/latency.py.
* idle: percent of a core that a server with those sockets uses while nobody writes.

Each vendor is measured in a process of its own. Prints a table and writes JSON with --json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import latency, numbering
from tests import postgres
from tests.acceptance.server import environment, make_database, running

PARTS = ("capture", "numbering", "arrival", "idle")
VENDORS = ("sqlite", "postgresql")
BODY = "a text of the length that the body of a row may well have, which is about so long" * 2


# --- capture --------------------------------------------------------------------------------------


def deeds(single: int, bulk: int) -> dict[str, tuple[int, Callable[[], None]]]:
    """Rows and the write of them, in the order they have to be done in."""
    from django.db import connection

    from tests.zoo.models import Note

    def each(sql: str, parameters: Callable[[int], list[Any]]) -> Callable[[], None]:
        def write() -> None:
            with connection.cursor() as cursor:
                for number in range(single):
                    cursor.execute(sql, parameters(number))

        return write

    def create() -> None:
        for number in range(single):
            Note.objects.create(title=f"o{number}", body=BODY)

    def bulk_create() -> None:
        Note.objects.bulk_create(
            [Note(title=f"b{number}", body=BODY) for number in range(bulk)], batch_size=1_000
        )

    def bulk_update() -> None:
        Note.objects.filter(title__startswith="b").update(score=7)

    def bulk_delete() -> None:
        queryset = Note.objects.filter(title__startswith="b")
        queryset._raw_delete(queryset.db)

    insert = "INSERT INTO zoo_note (title, body, is_public) VALUES (%s, %s, %s)"
    return {
        "INSERT, one at a time": (single, each(insert, lambda n: [f"s{n}", BODY, False])),
        "UPDATE, one at a time": (
            single,
            each("UPDATE zoo_note SET score = %s WHERE title = %s", lambda n: [n, f"s{n}"]),
        ),
        "DELETE, one at a time": (
            single,
            each("DELETE FROM zoo_note WHERE title = %s", lambda n: [f"s{n}"]),
        ),
        "Model.objects.create()": (single, create),
        f"bulk_create() of {bulk:,}": (bulk, bulk_create),
        f"update() of {bulk:,}": (bulk, bulk_update),
        f"delete() of {bulk:,}": (bulk, bulk_delete),
    }


def capture(rounds: int, single: int, bulk: int) -> dict[str, dict[str, float]]:
    """Microseconds a row of each deed, without and with triggers."""
    from django.core.management import call_command
    from django.db import connection

    # Every round takes the triggers away and puts them back, which would be told a line each.
    logging.getLogger("realtime").setLevel(logging.WARNING)
    took: dict[str, dict[str, list[float]]] = {}
    _clean(connection)
    with connection.cursor() as cursor:
        # The deeds find their rows by title; the search is not what is measured.
        cursor.execute("CREATE INDEX bench_title ON zoo_note (title)")
    for number in range(rounds + 1):
        for state, command in (("plain", "uninstall"), ("captured", "install")):
            call_command("realtime_triggers", command, verbosity=0)
            for name, (rows, write) in deeds(single, bulk).items():
                began = time.perf_counter()
                write()
                spent = (time.perf_counter() - began) / rows * 1e6
                if number:  # the first round warms up
                    took.setdefault(name, {}).setdefault(state, []).append(spent)
            _check_captured(0 if state == "plain" else 4 * single + 3 * bulk)
            _clean(connection)
    found = {}
    for name, states in took.items():
        plain, captured = (statistics.median(states[state]) for state in ("plain", "captured"))
        found[name] = {"plain_us": plain, "captured_us": captured, "ratio": captured / plain}
    return found


def _check_captured(wanted: int) -> None:
    from realtime.models import WalEntry

    count = WalEntry.objects.filter(table_name="zoo_note").count()
    assert count == wanted, f"{count} changes captured, not {wanted}"


def _clean(connection: Any) -> None:
    postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        for table in ("zoo_note", "realtime_wal"):
            if postgresql:
                cursor.execute(f"TRUNCATE {table}")
                cursor.execute(f"VACUUM ANALYZE {table}")
            else:
                cursor.execute(f"DELETE FROM {table}")
        if not postgresql:
            cursor.execute("DELETE FROM realtime_wal")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# --- one vendor -----------------------------------------------------------------------------------


def measure_capture(arguments: argparse.Namespace) -> dict[str, Any]:
    import django

    django.setup()
    return capture(arguments.rounds, arguments.single, arguments.bulk)


def measure_numbering(arguments: argparse.Namespace) -> dict[str, Any]:
    import django

    django.setup()
    options = argparse.Namespace(entries=arguments.entries, batch=1_000, open=False, really=True)
    return numbering.measure(options)["changes_per_second"]


async def measure_server(database: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with running(database, arguments.server) as server:
        sockets = await latency.listeners(server, arguments.sockets)
        if "idle" in arguments.only:
            found["idle"] = {
                "sockets": arguments.sockets,
                "cpu_percent": await latency.cpu_percent(server.pid, arguments.seconds),
            }
        if "arrival" in arguments.only:
            found["arrival"] = {
                str(rate): await latency.arrival(server, sockets, rate, arguments.seconds)
                for rate in arguments.rates
            }
        await asyncio.gather(*[socket.close() for socket in sockets])
    return found


def measure(vendor: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """In this process, whose environment says which database."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder, url_of(vendor, folder):
        database = make_database(Path(folder) / "bench.sqlite3")
        os.environ.update(environment(database))
        if {"arrival", "idle"} & set(arguments.only):
            found |= asyncio.run(measure_server(database, arguments))
        if "capture" in arguments.only:
            found["capture"] = measure_capture(arguments)
        if "numbering" in arguments.only and vendor == "postgresql":
            found["numbering"] = measure_numbering(arguments)
        from django.apps import apps
        from django.db import connections

        if apps.ready:
            connections.close_all()
    return found


@contextmanager
def url_of(vendor: str, folder: str) -> Iterator[None]:
    """While the block runs, DATABASE_URL says where."""
    os.environ.pop("DATABASE_URL", None)
    if vendor == "sqlite":
        yield
        return
    server = postgres.Postgres(Path(folder))
    server.start()
    os.environ["DATABASE_URL"] = server.url
    try:
        yield
    finally:
        server.stop()


# --- all ------------------------------------------------------------------------------------------


def table(vendor: str, found: dict[str, Any]) -> str:
    lines = [f"\n{vendor}"]
    for name, row in found.get("capture", {}).items():
        lines.append(
            f"  {name:26} {row['plain_us']:9.1f} us   captured {row['captured_us']:9.1f} us"
            f"   {row['ratio']:5.2f} times"
        )
    for name, rate in found.get("numbering", {}).items():
        lines.append(f"  numbering, {name:26} {rate:9,.0f} changes/s")
    for rate, row in found.get("arrival", {}).items():
        lines.append(
            f"  arrival at {rate:>5} changes/s     p50 {row['p50']:7.1f} ms   "
            f"p95 {row['p95']:7.1f} ms   p99 {row['p99']:7.1f} ms   "
            f"(written {row['per_second']:,.0f}/s, {row['frames']:,} frames)"
        )
    if idle := found.get("idle"):
        lines.append(
            f"  idle with {idle['sockets']:,} sockets  {idle['cpu_percent']:.2f} % of a core"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--vendors", nargs="+", choices=VENDORS, default=VENDORS)
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--single", type=int, default=300, help="rows of the single writes")
    parser.add_argument("--bulk", type=int, default=5_000, help="rows of the bulk writes")
    parser.add_argument("--entries", type=int, default=100_000, help="changes to number")
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--rates", nargs="+", type=int, default=(100, 500, 2_000))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each rate, and idle")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        found = measure(arguments.inside, arguments)
        arguments.json.write_text(json.dumps(found))
        return
    result: dict[str, Any] = {}
    for vendor in arguments.vendors:
        with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
            answer = Path(folder) / "found.json"
            given = [part for part in sys.argv[1:] if not part.startswith("--json")]
            if arguments.json:
                given = [part for part in given if part != str(arguments.json)]
            command = [sys.executable, "-m", "benchmarks.writes", *given, "--inside", vendor]
            subprocess.run([*command, "--json", str(answer)], check=True)
            result[vendor] = json.loads(answer.read_text())
        sys.stdout.write(table(vendor, result[vendor]) + "\n")
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
