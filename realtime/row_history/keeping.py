"""Keeps the entries of tables with a history longer than the log keeps them.

`@publish(history=...)` asks for it; `manage.py migrate` and the leading process note it in the
database, so that pruning does not depend on which version of the code prunes. Entries are copied
from the log before they are pruned there. A copy and the position up to which is copied are one
transaction, and pruning stops at that position: whatever is killed, no entry is lost or doubled.
Runs in a database thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

from realtime import conf
from realtime.event_log.table import numbered_ids, oldest_seq
from realtime.models import HistoryEntry, HistoryTable, WalRelation
from realtime.wal import clock, published
from realtime.wal.head import find_head
from realtime.wal.vendor import supports, vendor_of

_DAY_US = 86_400_000_000
# Numbers of the log that one transaction looks at, and entries that one deletes.
_COPY_SPAN = 5_000
_DELETE_SPAN = 1_000
#: Characters of a key that the index holds.
KEY_START = 100

_COPY = """
INSERT INTO realtime_history
    (seq, table_id, commit_us, op, pk_text, key_start, old, new, relation_id, txid, actor)
SELECT n.seq, %s, n.commit_us, w.op, w.pk_text, SUBSTR(w.pk_text, 1, {start}), w.old, w.new,
    w.relation_id, w.txid, w.actor
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id
WHERE n.seq > %s AND n.seq <= %s AND w.id >= %s AND w.id <= %s AND w.relation_id IN ({marks})
ON CONFLICT (seq) DO NOTHING
"""


class AnotherKeeps(RuntimeError):
    """Another process prunes this database, or copies, at the moment."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A table that is to have a history, under the names that clients know, and for how long."""

    schema: str
    table: str
    days: float


def wanted() -> list[Wanted]:
    """The histories that the models ask for."""
    return [
        Wanted(entry.schema, entry.table, entry.history_days)
        for entry in published.published()
        if entry.history_days is not None
    ]


def exists(alias: str) -> bool:
    """Whether the tables of histories have been migrated."""
    tables = connections[alias].introspection.table_names()
    return {HistoryTable._meta.db_table, HistoryEntry._meta.db_table} <= {*tables}


def note(alias: str, *, exactly: bool = False) -> None:
    """Note in the database which tables are to have a history. With `exactly` those of which the
    models ask for none any more are no longer active: what is kept of them grows old and goes."""
    asked = {(one.schema, one.table): one for one in wanted()}
    rows = HistoryTable.objects.using(alias)
    known = {(row.schema_name, row.table_name): row for row in rows.all()}
    if exactly:
        for name in known.keys() - asked.keys():
            rows.filter(pk=known[name].pk, active=True).update(active=False)
    for name, one in asked.items():
        row = known.get(name)
        if row is None or not row.active:
            _begin(alias, one)
        elif row.days != one.days and (exactly or one.days > row.days):
            # A process with older code, which asks for less, shortens no history.
            rows.filter(pk=row.pk).update(days=one.days)


def _begin(alias: str, one: Wanted) -> None:
    """Begin a history with all that the log has. While another process prunes, the next one that
    notes begins it."""
    connection = connections[alias]
    rows = HistoryTable.objects.using(alias)
    with transaction.atomic(using=alias):
        # A write first: on SQLite a transaction that reads first may not write any more.
        rows.filter(pk=-1).update(active=True)
        if not vendor_of(connection).lock_pruning(connection):
            return
        reach = lost_before(connection)
        row, made = rows.get_or_create(
            schema_name=one.schema,
            table_name=one.table,
            defaults={"days": one.days, "copied_seq": reach, "lost_seq": reach},
        )
        if made or row.active:
            return
        if row.copied_seq < reach:
            # What lies between is gone, and so nothing before it can be relied on.
            row.copied_seq = row.lost_seq = reach
        row.days, row.active = one.days, True
        row.save(using=alias)


def lost_before(connection: BaseDatabaseWrapper) -> int:
    """The log has every entry after this seq."""
    # The head first: what is numbered in between is then kept, too.
    head = find_head(connection)
    oldest = oldest_seq(connection)
    if oldest is not None:
        return oldest - 1
    return 0 if head is None else head.seq


def active(alias: str) -> list[HistoryTable]:
    """The tables whose new entries are kept."""
    return list(HistoryTable.objects.using(alias).filter(active=True).order_by("pk"))


def copied_upto(alias: str) -> int | None:
    """Up to which seq the entries of all tables with a history are copied, so that nothing behind
    it may be pruned; None if there is no such table."""
    found = [row.copied_seq for row in active(alias)]
    return min(found, default=None)


def tables_kept(alias: str) -> set[tuple[str, str]]:
    """The schemas and names of all tables that have or had a history. Their relations are kept."""
    return set(HistoryTable.objects.using(alias).values_list("schema_name", "table_name"))


# --- copying --------------------------------------------------------------------------------------


def copying(alias: str, span: int = _COPY_SPAN) -> Iterator[int]:
    """Copy what the log has of tables with a history, as far as it has numbers. A step is one
    transaction, which looks at so many numbers (`span`); each gives how many entries it copied.
    Raises AnotherKeeps."""
    head = find_head(connections[alias])
    last = 0 if head is None else head.seq
    for row in active(alias):
        ids = _relations(alias, row)
        done = row.copied_seq
        while done < last:
            until = min(done + span, last)
            yield _copy(alias, row.pk, ids, done, until)
            done = until


def _relations(alias: str, row: HistoryTable) -> list[str]:
    found = WalRelation.objects.using(alias).filter(
        schema_name=row.schema_name, table_name=row.table_name
    )
    return list(found.values_list("pk", flat=True))


def _copy(alias: str, table: int, relations: list[str], done: int, until: int) -> int:
    connection = connections[alias]
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        _lock(connection)
        # A write first: on SQLite a transaction that reads first may not write any more.
        moved = HistoryTable.objects.using(alias).filter(pk=table, copied_seq=done)
        if not moved.update(copied_seq=until):
            raise AnotherKeeps("another process copies the log at the moment")
        if not relations:
            return 0
        ids = numbered_ids(connection, done, until)
        if ids is None:
            return 0
        marks = ", ".join(["%s"] * len(relations))
        sql = _COPY.format(start=KEY_START, marks=marks)
        cursor.execute(sql, [table, done, until, *ids, *relations])
        return max(int(cursor.rowcount), 0)


def _lock(connection: BaseDatabaseWrapper) -> None:
    if not vendor_of(connection).lock_pruning(connection):
        raise AnotherKeeps("another process prunes the log at the moment")


# --- pruning --------------------------------------------------------------------------------------


def beyond(alias: str) -> int:
    """How many entries of histories are older than their days."""
    return sum(
        HistoryEntry.objects.using(alias).filter(table=row, seq__lte=last).count()
        for row, last in _old(alias)
    )


def pruning(alias: str) -> Iterator[int]:
    """Delete entries of histories that are older than their days. A step is one transaction; each
    gives how many entries it deleted. Raises AnotherKeeps."""
    for row, last in _old(alias):
        while deleted := _delete(alias, row, last):
            yield deleted


def _old(alias: str) -> Iterable[tuple[HistoryTable, int]]:
    connection = connections[alias]
    now_us = clock.now_us(connection)
    for row in HistoryTable.objects.using(alias).order_by("pk"):
        last = last_at(alias, row, now_us - int(row.days * _DAY_US))
        if last is not None:
            yield row, last


def last_at(alias: str, row: HistoryTable, commit_us: int) -> int | None:
    """The last kept entry of this table that was committed at or before a time; None for none."""
    entries = HistoryEntry.objects.using(alias).filter(table=row)
    low = entries.order_by("seq").values_list("seq", flat=True).first()
    high = entries.order_by("-seq").values_list("seq", flat=True).first()
    found = None
    # Times rise with seq, so the range is halved instead of needing an index.
    while low is not None and high is not None and low <= high:
        middle = (low + high) // 2
        before = entries.filter(seq__gte=low, seq__lte=middle).order_by("-seq")
        near = before.values_list("seq", "commit_us").first()
        if near is None:
            low = middle + 1
        elif near[1] > commit_us:
            high = near[0] - 1
        else:
            found, low = near[0], middle + 1
    return found


def _delete(alias: str, row: HistoryTable, last: int) -> int:
    with transaction.atomic(using=alias):
        _lock(connections[alias])
        entries = HistoryEntry.objects.using(alias).filter(table=row)
        old = entries.filter(seq__lte=last).order_by("seq").values_list("seq", flat=True)
        gone = list(old[:_DELETE_SPAN])
        if not gone:
            return 0
        HistoryTable.objects.using(alias).filter(pk=row.pk, lost_seq__lt=gone[-1]).update(
            lost_seq=gone[-1]
        )
        entries.filter(seq__lte=gone[-1]).delete()
        return len(gone)


def connect(sender: AppConfig) -> None:
    """Connect to the signal of migrations. Makes no query."""
    post_migrate.connect(_after_migrations, sender=sender, dispatch_uid="realtime.row_history")


def _after_migrations(using: str, **kwargs: Any) -> None:
    if using == conf.current().DATABASE and supports(connections[using]) and exists(using):
        note(using, exactly=True)
