"""Writes a table at a steady rate until the standard input ends: `python -m benchmarks.soak.writers
RATE CONNECTIONS ROWS OWNER...`, on the database that Django is set up for.

Single changes, bulk writes, transactions of several changes, some of which are rolled back, and now
and then one that stays open for seconds. Each connection keeps about ROWS rows. For each
transaction that was committed it prints a line: the time just before the COMMIT (of a single
statement: before it), in nanoseconds of the monotonic clock, and the changes.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.soak.ledger import Change
from tests.support.endless_writers import run_until_input_ends

SCORES = 10
# Rows of a bulk write.
BULK = 40
# One of so many transactions is rolled back, one transaction stays open so long, in seconds, and
# the next one begins so much later.
ROLLED_BACK = 8
OPEN_SECONDS = 8.0
BETWEEN_OPEN = 20.0
BODY = "b" * 120

Report = Callable[[int, list[Change]], None]


class _Regret(Exception):
    """The transaction is to be rolled back."""


class Writer:
    """The rows of one connection. No other one changes them, so their changes have one order."""

    def __init__(self, name: str, rows: int, owners: list[int], report: Report) -> None:
        self._name = name
        self._rows = rows
        self._owners = owners
        self._report = report
        self.chance = random.Random(name)
        self._keys: list[int] = []
        self._number = 0
        self._done: list[Change] = []

    def single(self) -> int:
        """One statement, which is its own transaction. Returns the number of changes."""
        return self._commit(self._change)

    def bulk(self) -> int:
        """One statement for many rows."""
        if len(self._keys) > self._rows:
            return self._commit(self._delete_many)
        if len(self._keys) > BULK and self.chance.random() < 0.5:
            return self._commit(self._update_many)
        return self._commit(self._insert_many)

    def several(self, open_seconds: float = 0.0, *, regret: bool | None = None) -> int:
        """A transaction of some changes, which stays open for so long and may be rolled back."""
        from django.db import transaction

        if regret is None:
            regret = self.chance.randrange(ROLLED_BACK) == 0
        keys, committing = list(self._keys), 0
        try:
            with transaction.atomic():
                for _ in range(self.chance.randint(2, 6)):
                    self._change()
                time.sleep(open_seconds)
                if regret:
                    raise _Regret
                committing = time.monotonic_ns()
        except _Regret:
            self._keys = keys
            self._done.clear()
            return 0
        return self._tell(committing)

    def _commit(self, statement: Callable[[], None]) -> int:
        began = time.monotonic_ns()
        statement()
        return self._tell(began)

    def _tell(self, committing: int) -> int:
        done, self._done = self._done, []
        self._report(committing, done)
        return len(done)

    def _change(self) -> None:
        kind = self.chance.random()
        full = len(self._keys) > self._rows
        if not self._keys or kind < (0.25 if full else 0.5):
            self._insert_many(1)
        elif kind < 0.75:
            self._update()
        else:
            self._delete()

    def _title(self) -> str:
        self._number += 1
        return f"{self._name}.{self._number}"

    def _insert_many(self, count: int = BULK) -> None:
        from tests.zoo.models import Note

        rows = Note.objects.bulk_create(
            Note(
                owner_id=self.chance.choice(self._owners),
                title=self._title(),
                body=BODY,
                is_public=self.chance.random() < 0.2,
                score=self.chance.randrange(SCORES),
            )
            for _ in range(count)
        )
        self._keys += [row.pk for row in rows]
        self._done += [Change("INSERT", row.pk, row.title) for row in rows]

    def _update(self) -> None:
        from tests.zoo.models import Note

        key, title = self.chance.choice(self._keys), self._title()
        fields: dict[str, Any] = {"title": title, "score": self.chance.randrange(SCORES)}
        if self.chance.random() < 0.3:
            fields["is_public"] = self.chance.random() < 0.2
        Note.objects.filter(pk=key).update(**fields)
        self._done.append(Change("UPDATE", key, title))

    def _update_many(self) -> None:
        from django.db.models import CharField, Value
        from django.db.models.functions import Cast, Concat

        from tests.zoo.models import Note

        keys, start = self.chance.sample(self._keys, BULK), f"{self._title()}."
        title = Concat(Value(start), Cast("pk", CharField()))
        Note.objects.filter(pk__in=keys).update(title=title)
        self._done += [Change("UPDATE", key, f"{start}{key}") for key in keys]

    def _delete(self) -> None:
        self._delete_many(1)

    def _delete_many(self, count: int = BULK) -> None:
        from tests.zoo.models import Note

        self.chance.shuffle(self._keys)
        keys, self._keys = self._keys[:count], self._keys[count:]
        Note.objects.filter(pk__in=keys).delete()
        self._done += [Change("DELETE", key, None) for key in keys]


def work(writer: Writer, rate: float, stop: threading.Event) -> None:
    """Write so many changes a second. A writer that is late catches up."""
    count, began = 0, time.monotonic()
    while not stop.wait(max(0.0, began + count / rate - time.monotonic())):
        kind = writer.chance.random()
        # By changes: about a half single ones, a quarter in bulk, a quarter in transactions.
        if kind < 0.88:
            count += writer.single()
        elif kind < 0.89:
            count += writer.bulk()
        else:
            # What is rolled back takes its time too.
            count += writer.several() or 1


def hold_open(writer: Writer, stop: threading.Event) -> None:
    """Make transactions that stay open for seconds, every other one in vain."""
    regret = False
    while not stop.wait(BETWEEN_OPEN):
        writer.several(OPEN_SECONDS, regret=regret)
        regret = not regret


def main(arguments: list[str]) -> None:
    import django

    django.setup()
    rate, connections, rows, *owners = map(int, arguments)
    saying = threading.Lock()

    def report(committing: int, changes: list[Change]) -> None:
        line = json.dumps([committing, changes])
        with saying:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    each = rate / connections
    writers = [
        partial(work, Writer(f"w{number}", rows, owners, report), each)
        for number in range(connections)
    ]
    patient = Writer("long", rows, owners, report)
    run_until_input_ends([*writers, partial(hold_open, patient)])


if __name__ == "__main__":
    main(sys.argv[1:])
