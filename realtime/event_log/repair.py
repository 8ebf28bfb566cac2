"""Finds what is wrong with a log and mends it. Runs in a database thread.

A log is damaged by changes that bypass it: a restore of some of its tables, rows deleted by hand, a
copied file. Normal operation needs none of this: numbering mends what it meets by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log.table import backlog
from realtime.models import WalEntry, WalNumber, WalRelation
from realtime.wal import triggers
from realtime.wal.backlog import unnumbered
from realtime.wal.head import begin_epoch, disown, find_head, find_row, read_head
from realtime.wal.vendor import vendor_of

# Numbers whose entries are there.
_KEPT = "realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem. `text` says what is wrong and `cure` what `mend` does about it, both for
    people."""

    text: str
    cure: str
    mend: Callable[[], object]


def problems(alias: str) -> list[Problem]:
    """Everything that is wrong with the log of this database, in the order it is to be mended in.
    Changes nothing. Raises UnknownVendor, and what the database raises."""
    connection = connections[alias]
    return [
        problem
        for look in (_head, _behind, _gap, _overlooked, _unreadable, _ids, _triggers)
        if (problem := look(connection)) is not None
    ]


def _head(connection: BaseDatabaseWrapper) -> Problem | None:
    row = find_row(connection)
    if row is None:
        return Problem("The log has no head.", "A new one begins.", lambda: read_head(connection))
    if row.is_own(connection):
        return None
    return Problem(
        "The head was not written by this log: the database was restored or copied, or a fixture "
        "or another program brought it.",
        "A new epoch begins, and clients read their rows again.",
        lambda: disown(connection, row.head),
    )


def _behind(connection: BaseDatabaseWrapper) -> Problem | None:
    head = find_head(connection)
    most = _bound(connection, "MAX(seq)")
    if head is None or most is None or most <= head.seq:
        return None
    return Problem(
        f"The head stands at seq {head.seq:,}, and entries have numbers up to {most:,}.",
        "A new epoch begins behind them, and clients read their rows again.",
        lambda: disown(connection, head),
    )


def _gap(connection: BaseDatabaseWrapper) -> Problem | None:
    head = find_head(connection)
    last = _last_before_gap(connection, None if head is None else head.seq)
    if last is None:
        return None
    count = WalEntry.objects.using(connection.alias).filter(seq__lte=last).count()
    return Problem(
        f"Numbers are missing after seq {last:,}: {count:,} entries before them cannot be replayed "
        "to where the log stands.",
        "They are deleted; clients that need them read their rows again.",
        lambda: _delete_upto(connection, last),
    )


def _overlooked(connection: BaseDatabaseWrapper) -> Problem | None:
    entries, parameters = unnumbered(connection, "w.id")
    overlooked = (
        "FROM realtime_wal WHERE NOT EXISTS"
        " (SELECT 1 FROM realtime_wal_number AS n WHERE n.entry_id = realtime_wal.id)"
        f" AND NOT EXISTS (SELECT 1 FROM ({entries}) AS b WHERE b.id = realtime_wal.id)"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) {overlooked}", parameters)
        (count,) = cursor.fetchone()
    if not count:
        return None

    def mend() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE {overlooked}", parameters)
        begin_epoch(connection)

    return Problem(
        f"{count:,} entries have no number and never get one: they were restored without it, and "
        "others were numbered since.",
        "They are deleted, a new epoch begins, and clients read their rows again.",
        mend,
    )


def _unreadable(connection: BaseDatabaseWrapper) -> Problem | None:
    entries = WalEntry.objects.using(connection.alias)
    known = set(WalRelation.objects.using(connection.alias).values_list("pk", flat=True))
    lost = set(entries.values_list("relation_id", flat=True).distinct()) - known
    if not lost:
        return None
    count = entries.filter(relation_id__in=lost).count()

    def mend() -> None:
        with transaction.atomic(using=connection.alias):
            numbered = entries.filter(relation_id__in=lost).exclude(seq=None)
            last = numbered.order_by("-seq").values_list("seq", flat=True).first()
            entries.filter(relation_id__in=lost, seq=None).delete()
            if last is not None:
                _delete_upto(connection, last)
        begin_epoch(connection)

    return Problem(
        f"{count:,} entries name a shape of their table that is not recorded, so they cannot be "
        "read.",
        "They and those before them are deleted, a new epoch begins, and clients read their rows "
        "again.",
        mend,
    )


def _ids(connection: BaseDatabaseWrapper) -> Problem | None:
    if not vendor_of(connection).ids_behind(connection):
        return None

    return Problem(
        "New entries would get ids that are taken, so writes to published tables fail.",
        "The sequence goes on behind the largest id.",
        lambda: vendor_of(connection).pass_taken_ids(connection),
    )


def _triggers(connection: BaseDatabaseWrapper) -> Problem | None:
    wrong = [
        trigger
        for trigger in triggers.status(connection.alias)
        if trigger.state is not triggers.State.INSTALLED
    ]
    if not wrong:
        return None

    tables = ", ".join(sorted({trigger.table for trigger in wrong}))
    return Problem(
        f"Capture triggers are missing, stale or left over: {tables}.",
        "They are made what they should be; where one was missing, a new epoch begins.",
        lambda: triggers.restore(connection.alias),
    )


def waiting(alias: str) -> int:
    """How many entries wait for a number."""
    return backlog(connections[alias])


def _last_before_gap(connection: BaseDatabaseWrapper, head: int | None) -> int | None:
    """The last seq before the last gap between numbers; None where there is none."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT MIN(seq), MAX(seq), COUNT(seq) FROM {_KEPT}")
        first, last, count = cursor.fetchone()
        if first is None or head is None:
            return None
        if last < head:
            # Pruning deletes the oldest entries only, so something else deleted the newest.
            return int(last)
        if last - first + 1 == count:
            return None
        cursor.execute(
            f"SELECT MAX(seq) FROM {_KEPT} WHERE seq < %s AND NOT EXISTS"
            " (SELECT 1 FROM realtime_wal_number AS m JOIN realtime_wal AS v ON v.id = m.entry_id"
            " WHERE m.seq = n.seq + 1)",
            [last],
        )
        (found,) = cursor.fetchone()
    return None if found is None else int(found)


def _delete_upto(connection: BaseDatabaseWrapper, last: int) -> None:
    WalEntry.objects.using(connection.alias).filter(seq__lte=last).delete()
    # Numbers whose entries were gone before.
    numbers = WalNumber.objects.using(connection.alias)
    numbers.exclude(entry__in=WalEntry.objects.using(connection.alias).values("pk")).delete()


def _bound(connection: BaseDatabaseWrapper, what: str) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {what} FROM realtime_wal_number")
        (value,) = cursor.fetchone()
    return None if value is None else int(value)
