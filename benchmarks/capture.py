"""Times writes to one table, with the triggers that capture them and without, in alternation.

Prints nothing. The database is the one that Django is set up for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

PLAIN, CAPTURED = "plain", "captured"
BODY = "a text of the length that the body of a row may well have, which is about so long" * 2


def writes(single: int, bulk: int, many: int) -> dict[str, tuple[int, Callable[[], None]]]:
    """By name, a number of rows and a function that writes them, in the order of execution."""
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

    def insert_many() -> None:
        # Made by the database, so that next to nothing but the INSERT is timed.
        rows = (
            "SELECT n FROM generate_series(1, %s) AS n"
            if connection.vendor == "postgresql"
            else "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %s)"
            " SELECT n FROM s"
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO zoo_note (title, body, is_public)"
                f" SELECT 'm' || n, %s, %s FROM ({rows}) AS numbers",
                [BODY, False, many],
            )

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
        f"INSERT of {many:,} in one statement": (many, insert_many),
        f"bulk_create() of {bulk:,}": (bulk, bulk_create),
        f"update() of {bulk:,}": (bulk, bulk_update),
        f"delete() of {bulk:,}": (bulk, bulk_delete),
    }


def goal_of(name: str) -> float | None:
    """The goal for the time with the triggers by the time without them, on PostgreSQL."""
    if name.startswith("INSERT of"):
        return 2.5
    return 1.15 if name.endswith(("one at a time", "objects.create()")) else None


def capture(rounds: int, single: int, bulk: int, many: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds per row of each write, without triggers and with them: a figure per round."""
    from django.core.management import call_command
    from django.db import connection

    # Every round removes and installs the triggers, and each time would be a line in the log.
    logging.getLogger("realtime").setLevel(logging.WARNING)
    took: dict[str, dict[str, list[float]]] = {}
    _clean(connection)
    with connection.cursor() as cursor:
        # The writes find their rows by title; the search is not to be measured.
        cursor.execute("CREATE INDEX bench_title ON zoo_note (title)")
    for number in range(rounds + 1):
        for state, command in ((PLAIN, "uninstall"), (CAPTURED, "install")):
            call_command("realtime_triggers", command, verbosity=0)
            for name, (rows, write) in writes(single, bulk, many).items():
                began = time.perf_counter()
                write()
                spent = (time.perf_counter() - began) / rows * 1e6
                if number:  # the first round warms up
                    took.setdefault(name, {}).setdefault(state, []).append(spent)
            _check_captured(0 if state == PLAIN else 4 * single + many + 3 * bulk)
            _clean(connection)
    return took


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
