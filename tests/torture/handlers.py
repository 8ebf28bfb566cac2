"""Handlers of every sort, for one table: each does its work in the database, and outside of it.

TORTURE_HANDLERS names those that are registered here, all by default. What they do outside is one
line in the file TORTURE_FILE; it is written before anything can fail, so every change has at least
one line, and all lines of a change bear the same delivery id.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from django.db.models import F

from realtime import on_change
from tests.torture.models import Copy, Item, Step, Tally
from tests.torture.names import (
    AWAITING,
    BATCHED,
    COPYING,
    COUNTING,
    FAILING,
    FAST,
    KEYED,
    POISON,
    POISONED,
    PROMPT,
    TORTURED,
)

# Each costs a pause of a second.
_FAILURES = 0.005

Row = dict[str, Any]


class Trouble(Exception):
    """What a handler raises here now and then."""


def row(change: Any) -> Row:
    found: Row = change.old if change.type == "DELETE" else change.new
    return found


def outside(handler: str, change: Any) -> None:
    if name := os.environ.get("TORTURE_FILE"):
        line = f"{handler} {change.seq} {change.delivery_id}\n"
        # One write of a short line at the end of a file is never mixed with another's.
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def step(handler: str, change: Any) -> Step:
    return Step(
        handler=handler,
        seq=change.seq,
        group=row(change)["group"],
        delivery_id=change.delivery_id,
    )


def count(change: Any) -> None:
    outside(COUNTING, change)
    Tally.objects.get_or_create(name=COUNTING)
    Tally.objects.filter(name=COUNTING).update(count=F("count") + 1)
    step(COUNTING, change).save()


def copy(change: Any) -> None:
    outside(COPYING, change)
    step(COPYING, change).save()
    if change.type == "DELETE":
        Copy.objects.filter(pk=change.pk).delete()
    else:
        shown = {name: change.new[name] for name in ("group", "value", "text")}
        Copy.objects.update_or_create(pk=change.pk, defaults=shown)


def fail(change: Any) -> None:
    outside(FAILING, change)
    if random.random() < _FAILURES:
        raise Trouble("before anything was written")
    step(FAILING, change).save()
    if random.random() < _FAILURES:
        raise Trouble("after it was written")


def batch(changes: list[Any]) -> None:
    for change in changes:
        outside(BATCHED, change)
    Step.objects.bulk_create([step(BATCHED, change) for change in changes])


def by_key(change: Any) -> None:
    outside(KEYED, change)
    step(KEYED, change).save()


async def await_it(change: Any) -> None:
    outside(AWAITING, change)
    await step(AWAITING, change).asave()


def poisoned(change: Any) -> None:
    outside(POISONED, change)
    step(POISONED, change).save()
    if row(change)["value"] == POISON:
        raise Trouble("this change is never mastered")


def fast(changes: list[Any]) -> None:
    """Copies items, many at a time."""
    gone = [change.pk for change in changes if change.type == "DELETE"]
    rows = {change.pk: change.new for change in changes if change.type != "DELETE"}
    if gone:
        Copy.objects.filter(pk__in=gone).delete()
    Copy.objects.bulk_create(
        [
            Copy(pk=pk, **{n: new[n] for n in ("group", "value", "text")})
            for pk, new in rows.items()
        ],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["group", "value", "text"],
    )


def prompt(change: Any) -> None:
    """Notes how many nanoseconds after its writing it got a change."""
    took = time.time_ns() - change.new["written_ns"]
    with open(os.environ["TORTURE_FILE"], "a") as file:
        file.write(f"{change.seq} {took}\n")


_ALL: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    COUNTING: (count, {}),
    COPYING: (copy, {}),
    FAILING: (fail, {}),
    BATCHED: (batch, {"batch": 50}),
    KEYED: (by_key, {"key": "group", "concurrency": 4}),
    AWAITING: (await_it, {}),
    POISONED: (poisoned, {"on_failure": "dead_letter", "attempts": 2}),
    FAST: (fast, {"batch": 1000}),
    PROMPT: (prompt, {}),
}

for _name in os.environ.get("TORTURE_HANDLERS", ",".join(TORTURED)).split(","):
    _function, _options = _ALL[_name]
    on_change(Item, name=_name, start="beginning", **_options)(_function)
