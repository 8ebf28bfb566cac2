"""The speed of numbering: `python -m benchmarks.numbering`.

Captured changes (200,000 by default, in transactions of four) are numbered as under load, when
1,000 become visible at a time, and as a backlog that a tailer finds. Compared with the least work
of any design that stores positions beside the rows: an INSERT of 1,000 rows at a time whose seq is
the id, without order, whole transactions or timestamps. Capture is not in the times.

With an open transaction beside it (PostgreSQL; --open) the important figure is the time of an idle
look.

With --vendor the database is a temporary one, else that of DATABASE_URL, else a temporary SQLite
file. The log is emptied first, so --really is needed if it has entries that are not a benchmark's.
Every run is checked: no gap, whole transactions, and their order. Both sides alternate, in several
rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import django
from django.core.management import CommandError, call_command
from django.db import connections

from benchmarks.chart import Panel, bars
from benchmarks.databases import VENDORS, url_of
from benchmarks.entries import (
    PER_TRANSACTION,
    check,
    commit,
    empty,
    fill,
    on_postgresql,
    open_transaction,
    vacuum,
)
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table

AS_THEY_COME, BACKLOG = "numbered as they come", "numbered from a backlog"
PLAIN = "a plain INSERT"


def as_they_come(count: int, size: int) -> float:
    """Seconds for numbering alone, when `size` entries become visible at a time."""
    from django.db import connection

    from realtime.event_log.sequencer import Sequencer

    sequencer = Sequencer()
    spent = 0.0
    for start in range(0, count, size):
        commit(size, start)
        began = time.perf_counter()
        assert sequencer.look(connection).waiting
        # With a larger limit, as for a tailer that keeps up.
        assert sequencer.number(connection, 2 * size) == size
        spent += time.perf_counter() - began
    return spent


def in_steps(count: int) -> float:
    """Seconds for a backlog, in the steps of a tailer."""
    from django.db import connection

    from realtime.event_log import tailer
    from realtime.event_log.sequencer import Sequencer
    from realtime.event_log.table import BATCH

    fill(count)
    vacuum()
    sequencer = Sequencer()
    total, step = 0, BATCH
    began = time.perf_counter()
    while sequencer.look(connection).waiting:
        total += sequencer.number(connection, step)
        step = min(step * tailer.STEP_FACTOR, tailer.STEP_MOST)
    assert total == count
    return time.perf_counter() - began


def plainly(count: int, size: int) -> float:
    """The compared work, when `size` entries become visible at a time: each entry's
    number is its id."""
    from django.db import connection

    spent = 0.0
    with connection.cursor() as cursor:
        last = 0
        for start in range(0, count, size):
            commit(size, start)
            began = time.perf_counter()
            cursor.execute(
                "INSERT INTO realtime_wal_number (seq, entry_id, commit_us)"
                " SELECT id, id, captured_us FROM realtime_wal WHERE id > %s",
                [last],
            )
            assert cursor.rowcount == size
            cursor.execute("SELECT MAX(id) FROM realtime_wal")
            (last,) = cursor.fetchone()
            spent += time.perf_counter() - began
    return spent


def idle_look() -> float:
    """Milliseconds for a look that finds no entry, by a sequencer that has looked before."""
    from django.db import connection

    from realtime.event_log.sequencer import Sequencer

    sequencer = Sequencer()
    sequencer.look(connection)
    began = time.perf_counter()
    for _ in range(50):
        assert not sequencer.look(connection).waiting
    return (time.perf_counter() - began) / 50 * 1_000


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Our numbering and the compared work in alternation: a figure per round."""
    count, size = arguments.entries, arguments.batch
    runs: dict[str, tuple[Callable[[], float], bool]] = {
        AS_THEY_COME: (lambda: as_they_come(count, size), True),
        BACKLOG: (lambda: in_steps(count), True),
        PLAIN: (lambda: plainly(count, size), False),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    looks: dict[str, list[float]] = {name: [] for name, (_, ours) in runs.items() if ours}
    for _ in range(arguments.rounds):
        for name, (run, ours) in runs.items():
            empty(arguments.really)
            with open_transaction(arguments.open):
                rates[name].append(count / run())
                if ours:
                    looks[name].append(idle_look())
            if ours:
                check(count)
        empty(True)
    return {"changes_per_second": rates, "idle_look_ms": looks}


def compared(rates: dict[str, list[float]], where: str = "") -> list[Comparison]:
    return [
        Comparison(f"changes a second{where}", name, PLAIN, ratios(rates[name], rates[PLAIN]))
        for name in (AS_THEY_COME, BACKLOG)
    ]


def drawn(rates: dict[str, list[float]], where: str) -> Panel:
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return bars(f"Numbering, {where}", middle, "changes a second", ours="numbered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vendor", choices=VENDORS, help="on a database of its own")
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--open", action="store_true", help="beside a transaction that stays open")
    parser.add_argument("--really", action="store_true", help="delete whatever the log holds")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    if arguments.entries % arguments.batch or arguments.batch % PER_TRANSACTION:
        parser.error(f"--entries must be a multiple of --batch, and that one of {PER_TRANSACTION}")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "realtime_project.settings")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowcast-bench-"))
        if arguments.vendor or not os.environ.get("DATABASE_URL"):
            os.environ["SQLITE_PATH"] = str(Path(folder) / "bench.sqlite3")
            stack.enter_context(url_of(arguments.vendor or "sqlite", folder))
            arguments.really = True
        django.setup()
        stack.callback(connections.close_all)
        call_command("migrate", verbosity=0, skip_checks=True)
        try:
            found = measure(arguments)
        except CommandError as error:
            sys.exit(str(error))
        where = "PostgreSQL" if on_postgresql() else "SQLite"
    rates, looks = found["changes_per_second"], found["idle_look_ms"]
    head = ["changes a second", "min / median / max", "then an idle look, ms"]
    rows = [
        [name, spread(values), spread(looks[name], 3) if name in looks else ""]
        for name, values in rates.items()
    ]
    say(table(head, rows))
    title = f"{where}, {arguments.entries:,} changes, {arguments.batch:,} at a time"
    conclude(arguments, found, compared(rates), [drawn(rates, title)])


if __name__ == "__main__":
    main()
