"""Deletes entries and broadcasts beyond retention, and relations that nothing names any more.

Entries of tables with a history are copied first (`realtime.row_history.keeping`), and nothing goes
behind the position up to which they are. Where the log is in partitions, those go whole that hold
only entries beyond retention. Otherwise ranges of seq are deleted in short transactions, so that
writers can write in between. Entries without a number are kept, and those that a living process
still has to read. The head keeps the last seq, so numbering goes on even when no entry is left.
Runs in a database thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, Q, QuerySet
from django.db.models.functions import Now

from realtime import conf
from realtime.event_log.table import numbered_ids, oldest_seq
from realtime.models import Message, Receipt, WalEntry, WalNumber, WalRelation
from realtime.process import registry, retention
from realtime.process.partition_upkeep import PartitionUpkeep
from realtime.process.retention import Retention
from realtime.row_history import keeping
from realtime.wal.partitions import Busy, Partition, Partitions
from realtime.wal.vendor import vendor_of

# The pause after a chunk, as a multiple of its time: on SQLite a waiting writer tries again only
# now and then, and in no order with others.
_REST = 1.0
_REST_LEAST = 0.005
# How often to wait for writers that have not committed before relations are left to the next run.
_WAITS = 20
# Broadcasts or receipts deleted by one statement.
_MESSAGES = 500
# In a log that is bounded by its size alone.
_RECEIPTS_AGE = timedelta(days=30)
# How often to look for a moment at which empty partitions can be dropped. The next run goes on.
_DROPS = 50
_DROP_REST = 0.01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AnotherPrunes(RuntimeError):
    """Another process prunes this database at the moment."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The progress of a run.

    `entries` of `total` are deleted (in a dry run: would be). `held_at` is the seq that a process
    still needs, before which the run stops; None if no process does. `relations` and `messages` are
    numbers of deleted rows. `copied` entries were added to histories, and `history` entries deleted
    from them. `rest` is the pause in seconds that writers need now.
    """

    entries: int
    total: int
    held_at: int | None = None
    relations: int = 0
    messages: int = 0
    rest: float = 0.0
    copied: int = 0
    history: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The sizes of a run's steps. The first chunk has `first` entries; chunks grow, up to `most`
    entries, or shrink until one takes about `seconds`. `wait` is how many seconds pass before the
    run looks for uncommitted writers again."""

    first: int = 500
    most: int = 20_000
    seconds: float = 0.05
    wait: float = 0.1


_PACE = Pace()


def prune(
    older_than: timedelta | None = None,
    *,
    alias: str | None = None,
    dry_run: bool = False,
    progress: Callable[[Pruned], None] | None = None,
    pace: Pace = _PACE,
) -> Pruned:
    """Delete all that was committed longer ago than `older_than` (default: RETENTION).

    `progress` is called after every chunk. Raises AnotherPrunes, or what the database raises; what
    was deleted until then stays so.
    """
    alias = alias or conf.current().DATABASE
    if dry_run:
        return survey(alias, older_than)
    PartitionUpkeep(alias).look()
    pruned = Pruned(0, 0)
    for pruned in steps(alias, older_than, pace):
        if progress is not None:
            progress(pruned)
        time.sleep(pruned.rest)
    return pruned


def survey(alias: str, older_than: timedelta | None = None) -> Pruned:
    """The outcome that a run would have now. Deletes nothing."""
    limit = _limit(older_than)
    first, last, held_at = _range(connections[alias], limit)
    unused = _unused_relations(connections[alias])
    count = 0
    if first is not None and first <= last:
        numbers = WalNumber.objects.using(alias).filter(seq__gte=first, seq__lte=last)
        count = numbers.count()
    messages = _old(Message, "inserted_at", connections[alias], limit, last).count()
    return Pruned(count, count, held_at, len(unused), messages, history=keeping.beyond(alias))


def steps(
    alias: str,
    older_than: timedelta | None = None,
    pace: Pace = _PACE,
    *,
    whole_partitions: bool = False,
) -> Iterator[Pruned]:
    """One run, a short transaction at a time; the last value is the outcome. Histories first take
    what is theirs, and lose what is older than their days.

    With `whole_partitions` other entries are left to a later run that finds their partition whole
    beyond retention, as long as that is to be expected soon. Each step may be taken in another
    database thread.
    """
    copied = history = 0
    keeping.note(alias)
    for number in _histories(keeping.copying(alias)):
        copied += number
        yield Pruned(0, 0, rest=_REST_LEAST, copied=copied)
    for number in _histories(keeping.pruning(alias)):
        history += number
        yield Pruned(0, 0, rest=_REST_LEAST, copied=copied, history=history)
    for pruned in _log_steps(alias, older_than, pace, whole_partitions):
        yield replace(pruned, copied=copied, history=history)


def _histories(steps: Iterator[int]) -> Iterator[int]:
    try:
        yield from steps
    except keeping.AnotherKeeps as error:
        raise AnotherPrunes(str(error)) from None


def _log_steps(
    alias: str, older_than: timedelta | None, pace: Pace, whole_partitions: bool
) -> Iterator[Pruned]:
    limit = _limit(older_than)
    first, last, held_at = _range(connections[alias], limit)
    done = 0
    total = 0 if first is None else max(last - first + 1, 0)
    if _partitions(alias) is not None:
        upto = 0
        for emptied in _empty_partitions(alias, last):
            done += emptied.entries
            upto = max(upto, emptied.last_seq)
            yield Pruned(done, max(total, done), held_at, rest=_REST_LEAST)
        if whole_partitions and first is not None:
            # What the partitions held must not be told as kept, so its numbers go now.
            _, later, held = _range(connections[alias], limit.with_patience)
            last, held_at = max(upto, later), held_at if held is None else held
    size = pace.first
    while first is not None and first <= last:
        began = time.perf_counter()
        # Read again for each chunk: a replay may have begun since.
        needed = registry.lowest_needed(alias)
        if needed is not None and needed <= last:
            held_at, last = needed, needed - 1
            total = done + max(last - first + 1, 0)
            continue
        upto = min(first + size - 1, last)
        done += _delete(connections[alias], first, upto)
        first = upto + 1
        took = time.perf_counter() - began
        growth = min(pace.seconds / max(took, 1e-6), 2.0)
        size = max(1, min(int(size * growth), pace.most))
        rest = max(took * _REST, _REST_LEAST)
        yield Pruned(done, max(total, done), held_at, rest=rest)
    for _ in range(_DROPS):
        if _drop_partitions(alias):
            break
        yield Pruned(done, max(total, done), held_at, rest=_DROP_REST)
    messages = 0
    while deleted := _delete_messages(connections[alias], limit, last):
        messages += deleted
        yield Pruned(done, done, held_at, 0, messages, _REST_LEAST)
    while _delete_receipts(connections[alias], limit, last):
        yield Pruned(done, done, held_at, 0, messages, _REST_LEAST)
    relations = 0
    if unused := _unused_relations(connections[alias]):
        vendor = vendor_of(connections[alias])
        # A transaction that wrote under an old trigger may commit long after the trigger was
        # replaced, and its entries cannot be read without their relation.
        seen = vendor.newest_writer(connections[alias])
        for _ in range(_WAITS):
            if vendor.ended_before(connections[alias], seen):
                relations = _delete_relations(connections[alias], unused)
                break
            yield Pruned(done, done, held_at, 0, messages, pace.wait)
    yield Pruned(done, done, held_at, relations, messages)


def _limit(older_than: timedelta | None) -> Retention:
    return retention.configured() if older_than is None else Retention(older_than)


def _range(connection: BaseDatabaseWrapper, limit: Retention) -> tuple[int | None, int, int | None]:
    """The first kept seq, the last one to be deleted, and the seq that keeps later ones, if any."""
    first = oldest_seq(connection)
    last = limit.last_beyond(connection)
    if first is None or last is None:
        return None, 0, None
    last = _copied(connection.alias, last)
    needed = registry.lowest_needed(connection.alias)
    if needed is not None and needed <= last:
        return first, needed - 1, needed
    return first, last, None


def _copied(alias: str, upto: int) -> int:
    """The last seq up to this one that no history has yet to copy."""
    copied = keeping.copied_upto(alias)
    return upto if copied is None else min(upto, copied)


# --- whole partitions -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Emptied:
    """A partition that holds no entry any more: how many went now, and the last number among all
    it ever held. Their numbers are still there."""

    entries: int
    last_seq: int


def _partitions(alias: str) -> Partitions | None:
    """The partitions that may be emptied and dropped, if any. A role that does not own them prunes
    by ranges, as far as it has the rights."""
    # Made anew for each step, which may run in another thread.
    found = vendor_of(connections[alias]).partitions(connections[alias])
    return None if found is None or found.not_ours() else found


def _empty_partitions(alias: str, upto: int) -> Iterator[_Emptied]:
    """Empty the partitions whose entries all have numbers up to this one, and that nobody uses."""
    found = _partitions(alias)
    for partition in () if found is None else found.layout().closed:
        emptied = _empty(alias, partition, upto)
        if emptied is not None:
            yield emptied


def _empty(alias: str, partition: Partition, upto: int) -> _Emptied | None:
    partitions = _partitions(alias)
    newest = None if partitions is None else partitions.newest_seq(partition)
    if partitions is None or newest is None or newest > upto:
        return None

    def bound() -> int:
        _lock(connections[alias])
        needed = registry.lowest_needed(alias)
        return _copied(alias, upto if needed is None else min(upto, needed - 1))

    last = partitions.last_seq(partition)
    try:
        count = partitions.empty(partition, bound)
    except Busy:
        # A transaction that is open since then, or a reader: the next run tries again.
        return None
    return None if count is None or last is None else _Emptied(count, last)


def _drop_partitions(alias: str) -> bool:
    """Drop the empty partitions. False if somebody uses the log at the moment."""
    partitions = _partitions(alias)
    try:
        if partitions is not None:
            partitions.drop_empty()
    except Busy:
        return False
    return True


# --- ranges ---------------------------------------------------------------------------------------


def _lock(connection: BaseDatabaseWrapper) -> None:
    if not vendor_of(connection).lock_pruning(connection):
        raise AnotherPrunes("another process prunes the log at the moment")


def _delete(connection: BaseDatabaseWrapper, first: int, upto: int) -> int:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        _lock(connection)
        deleted = 0
        # A history may have begun since.
        upto = _copied(connection.alias, upto)
        if ids := numbered_ids(connection, first - 1, upto):
            # Their numbers go with them. The limits spare the other partitions.
            cursor.execute(
                "DELETE FROM realtime_wal WHERE id >= %s AND id <= %s AND id IN"
                " (SELECT entry_id FROM realtime_wal_number WHERE seq >= %s AND seq <= %s)",
                [*ids, first, upto],
            )
            deleted = int(cursor.rowcount)
        # Those whose entries were deleted while they were being numbered, or without triggers, or
        # with their partition.
        cursor.execute(
            "DELETE FROM realtime_wal_number WHERE seq >= %s AND seq <= %s", [first, upto]
        )
        return deleted


# --- broadcasts, receipts and relations -----------------------------------------------------------


def _old(
    model: type[Model],
    written_at: str,
    connection: BaseDatabaseWrapper,
    limit: Retention,
    upto: int,
) -> QuerySet[Any]:
    """Rows that were written beyond retention. A limit on the size of the log, by which entries up
    to the seq `upto` go, keeps them as long as the changes of their time."""
    old = Q(pk__in=())
    if limit.age is not None:
        old |= Q((f"{written_at}__lt", Now() - limit.age))
    if limit.size is not None:
        kept = WalNumber.objects.using(connection.alias).filter(seq__gt=upto).order_by("seq")
        for commit_us in kept.values_list("commit_us", flat=True)[:1]:
            old |= Q((f"{written_at}__lt", _EPOCH + timedelta(microseconds=commit_us)))
    return model._base_manager.using(connection.alias).filter(old)


def _delete_messages(connection: BaseDatabaseWrapper, limit: Retention, upto: int) -> int:
    """Delete some stored broadcasts. Their deletion is not captured, so no client notices it."""
    return _delete_some(_old(Message, "inserted_at", connection, limit, upto).order_by("pk"))


def _delete_receipts(connection: BaseDatabaseWrapper, limit: Retention, upto: int) -> int:
    """Delete some receipts that are as old as changes that are not kept. A log that is bounded by
    its size alone keeps them for a time too, because there may be more of them than entries."""
    if limit.age is None:
        limit = replace(limit, age=_RECEIPTS_AGE)
    return _delete_some(_old(Receipt, "taken_at", connection, limit, upto).order_by("taken_at"))


def _delete_some(found: QuerySet[Any]) -> int:
    ids = list(found.values_list("pk", flat=True)[:_MESSAGES])
    return found.model._base_manager.using(found.db).filter(pk__in=ids).delete()[0]


def _delete_relations(connection: BaseDatabaseWrapper, ids: list[str]) -> int:
    with transaction.atomic(using=connection.alias):
        # Checked again: a migration may have returned to an older shape, or a slow writer may have
        # committed an entry in it.
        unused = set(ids).intersection(_unused_relations(connection))
        return WalRelation.objects.using(connection.alias).filter(pk__in=unused).delete()[0]


def _unused_relations(connection: BaseDatabaseWrapper) -> list[str]:
    """Relations that no installed trigger and no kept entry names, of tables without a history.

    A table may be published again in an earlier shape; reconciling then records it anew.
    """
    texts = vendor_of(connection).trigger_texts(connection)
    kept = keeping.tables_kept(connection.alias)
    relations = WalRelation.objects.using(connection.alias).order_by("pk")
    ids = [
        id_
        for id_, *name in relations.values_list("pk", "schema_name", "table_name")
        if tuple(name) not in kept
    ]
    entries = WalEntry.objects.using(connection.alias)
    return [
        id_
        for id_ in ids
        if not any(id_ in text for text in texts)
        # Entries in an old shape are at the beginning of the log.
        and not entries.filter(relation_id=id_).order_by("pk").values("pk")[:1].exists()
    ]
