"""How far the handlers of changes have come, and what they failed at, read from the database.

The same in every process. Changes nothing; runs in a database thread and raises what the database
raises. Who runs a handler, and what moves it, is in `realtime.handling`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from django.db import connections
from django.db.models import BigIntegerField, Count, Min, OuterRef, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from realtime.models import DeadLetter, Handler, WalNumber
from realtime.wal import clock
from realtime.wal.head import find_head

# A handler that has not moved for so long, with changes to read as old, is stuck: longer than an
# attempt may take by default, and than another process needs to go on with it.
STUCK_MS = 120_000
# Names come from code, and those of code that is gone stay. More of them are not shown.
MOST = 200


class HandlerStatus(msgspec.Struct, frozen=True):
    """A handler. `state` is "running", "retrying" (its last attempt failed), "waiting" (no process
    runs it), "paused" or "stopped", and `stuck` whether it does not move although it should.

    `lag` is how many numbers of the log it has yet to pass, `lag_ms` the age of the first of them.
    `handled` and `failures` count changes and attempts since the handler began.
    """

    name: str
    state: str
    stuck: bool
    seq: int
    lag: int
    lag_ms: int
    attempts: int
    handled: int
    failures: int
    error: str
    dead_letters: int
    oldest_dead_letter_ms: int | None


class Trouble(msgspec.Struct, frozen=True):
    """How many handlers stand still: `stopped` after a failure, `stuck` for another reason."""

    stopped: int
    stuck: int


def read(alias: str) -> list[HandlerStatus]:
    """The handlers that ever ran on this database, by name; the first MOST."""
    head = find_head(connections[alias])
    letters = {
        name: (count, oldest, now)
        for name, count, oldest, now in DeadLetter.objects.using(alias)
        .values_list("handler")
        .annotate(count=Count("pk"), oldest=Min("failed_at"), now=Now())
    }
    found = []
    for row in with_times(Handler.objects.using(alias)).order_by("pk")[:MOST]:
        count, oldest, now = letters.get(row.name, (0, None, None))
        found.append(
            HandlerStatus(
                name=row.name,
                state=state_of(row),
                stuck=is_stuck(row),
                seq=row.seq,
                lag=max(0, (0 if head is None else head.seq) - row.seq),
                lag_ms=lag_ms(row),
                attempts=row.attempts,
                handled=row.handled,
                failures=row.failures,
                error=row.last_error,
                dead_letters=count,
                oldest_dead_letter_ms=None if oldest is None else _ms(now - oldest),
            )
        )
    return found


def read_trouble(alias: str) -> Trouble:
    """How many handlers stand still. One query, for a health check."""
    rows = list(with_times(Handler.objects.using(alias)).filter(paused=False)[:MOST])
    return Trouble(
        stopped=sum(bool(row.stopped) for row in rows),
        stuck=sum(is_stuck(row) for row in rows),
    )


def with_times(rows: QuerySet[Handler]) -> QuerySet[Handler]:
    """Handlers with the database's time, and that of the first change they have yet to read."""
    later = WalNumber.objects.filter(seq__gt=OuterRef("seq")).order_by("seq")
    now_us = RawSQL(clock.now_us_sql(connections[rows.db]), [], output_field=BigIntegerField())
    return rows.annotate(now=Now(), now_us=now_us, next_us=Subquery(later.values("commit_us")[:1]))


def state_of(row: Handler) -> str:
    """The state of a row that has the database's time as `now`."""
    if row.stopped:
        return "stopped"
    if row.paused:
        return "paused"
    if not row.owner or row.lease is None or row.lease < _now(row):
        return "waiting"
    return "retrying" if row.attempts else "running"


def is_stuck(row: Handler) -> bool:
    """Whether a row of `with_times` does not move although it should."""
    if row.stopped or row.paused or lag_ms(row) <= STUCK_MS:
        return False
    return _ms(_now(row) - row.moved_at) > STUCK_MS


def lag_ms(row: Handler) -> int:
    """The age of the first change that a row of `with_times` has yet to pass."""
    found = vars(row)
    return 0 if found["next_us"] is None else max(0, (found["now_us"] - found["next_us"]) // 1_000)


def _now(row: Handler) -> datetime:
    now: datetime = vars(row)["now"]
    return now


def _ms(duration: timedelta) -> int:
    return max(0, int(duration.total_seconds() * 1_000))
