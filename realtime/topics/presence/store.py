"""The tables `realtime_presence` and `realtime_presence_number`. Runs in a database thread.

A row of presence belongs to the process that wrote it and is deleted with that process. The number
of a process is written in the transaction of its rows, and read in the statement that reads them.
After a crash of the database both tables may be empty.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from django.db import connections, transaction
from django.db.models.functions import Now

from realtime.models import PresenceMember, PresenceNumber
from realtime.topics.presence.changes import Key, Present
from realtime.topics.presence.known import Table
from realtime.topics.presence.state import PresenceMeta
from realtime.wal.head import find_head

_BATCH = 200

# One statement, which sees one database snapshot. Its parts: members, processes, the head of the
# log.
_READ = """
SELECT 2 AS part, process_id, version, id, topic, private, "key", CAST(meta AS text) AS meta,
    user_id, since
FROM realtime_presence WHERE {where}
UNION ALL
SELECT 1, p.id, n.number, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM realtime_process AS p LEFT JOIN realtime_presence_number AS n ON n.process = p.id
UNION ALL
SELECT 0, epoch, seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM realtime_head WHERE id = 1
ORDER BY since, id
"""


class RowsMissing(Exception):
    """Rows of this process were deleted: its lease expired, or the database has lost them."""


class PresenceRow(msgspec.Struct, frozen=True):
    """A row to write: a member, its topic, and the id of its user, if any."""

    entry: PresenceMeta
    topic: str
    private: bool
    user_id: str | None = None

    @property
    def present(self) -> Present:
        """The row as other processes are told it: a public topic names no user."""
        entry = self.entry
        user_id = (self.user_id if self.private else None) or ""
        return Present(
            self.topic, self.private, entry.id, entry.version, entry.key, entry.meta, user_id
        )


@dataclass(frozen=True, slots=True)
class Written:
    """`refused` are the ids of new rows that were not inserted, because their topic is full.
    `epoch` and `seq` say how far the log was numbered, if a row of a private topic was written."""

    refused: Collection[str] = ()
    epoch: str = ""
    seq: int = 0


def read(alias: str, topics: Collection[Key] = (), processes: Collection[str] = ()) -> Table:
    """The members of these topics and of these processes, and the numbers of all processes, in one
    database snapshot. Raises what the database raises."""
    wanted = set(topics)
    names = sorted({topic for topic, _ in wanted})
    where, parameters = [], []
    for column, values in (("topic", names), ("process_id", sorted(processes))):
        if values:
            where.append(f"{column} IN ({', '.join(['%s'] * len(values))})")
            parameters += values
    numbers: dict[str, int | None] = {}
    rows: list[tuple[str, Present]] = []
    epoch, seq = "", 0
    with connections[alias].cursor() as cursor:
        cursor.execute(_READ.format(where=" OR ".join(where) or "1 = 0"), parameters)
        for part, name, number, id_, topic, private, key, meta, user_id, _ in cursor.fetchall():
            if part == 2:
                if name in processes or (topic, bool(private)) in wanted:
                    user = (user_id if private else None) or ""
                    row = Present(topic, bool(private), id_, number, key, meta.encode(), user)
                    # One text for all members of a process.
                    rows.append((sys.intern(name), row))
            elif part == 1:
                numbers[name] = number
            else:
                epoch, seq = name, number
    return Table(numbers, rows, epoch, seq)


def online(alias: str, topic: str, private: bool) -> dict[str, list[dict[str, Any]]]:
    """The metas of a topic's members, by key. Members of a process whose lease has expired are
    left out. Raises what the database raises."""
    rows = PresenceMember.objects.using(alias).filter(
        topic=topic, private=private, process__lease__gte=Now()
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for key, meta in rows.order_by("since", "pk").values_list("key", "meta"):
        found.setdefault(key, []).append(meta)
    return found


def write(
    alias: str,
    process: str,
    number: int,
    new: Collection[PresenceRow],
    changed: Collection[PresenceRow],
    gone: Collection[PresenceRow],
    most: int | None = None,
    whole: bool = False,
    passed: int = 0,
) -> Written:
    """Insert, update and delete rows of a process, all or nothing, and set its number. New rows of
    topics that have `most` members are left out. With `whole`, the process has no other rows
    afterwards. `passed` is the number of the last write that is known to have passed, 0 for none.

    Raises RowsMissing when a row to change or, without `whole`, that number is missing,
    IntegrityError when the process has no row of its own, and whatever else the database raises.
    """
    table = PresenceMember.objects.using(alias)
    epoch, seq = "", 0
    with transaction.atomic(using=alias):
        numbers = PresenceNumber.objects.using(alias)
        if passed and not whole:
            # A new number in a table that was emptied would hide that other rows are missing.
            if not numbers.filter(pk=process, number__gte=passed).update(number=number):
                raise RowsMissing
        else:
            numbers.bulk_create(
                [PresenceNumber(process=process, number=number)],
                update_conflicts=True,
                unique_fields=["process"],
                update_fields=["number"],
            )
        if whole:
            table.filter(process=process).delete()
        ids = sorted(row.entry.id for row in gone)
        for start in range(0, len(ids), _BATCH):
            table.filter(pk__in=ids[start : start + _BATCH]).delete()
        refused = [] if most is None else _beyond(alias, new, most)
        table.bulk_create(
            [_model(process, row) for row in new if row.entry.id not in refused],
            batch_size=_BATCH,
            # A row exists already where an earlier write passed although it seemed to fail.
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["process", "version", "meta", "user_id"],
        )
        models = [_model(process, row) for row in changed]
        if models and table.bulk_update(models, ["version", "meta", "user_id"], _BATCH) < len(
            models
        ):
            raise RowsMissing
        if any(row.private for row in (*new, *changed, *gone)):
            head = find_head(connections[alias])
            if head is not None:
                epoch, seq = head.epoch, head.seq
    return Written(refused, epoch, seq)


def _beyond(alias: str, new: Collection[PresenceRow], most: int) -> list[str]:
    by_topic: dict[tuple[str, bool], list[str]] = {}
    for row in new:
        by_topic.setdefault((row.topic, row.private), []).append(row.entry.id)
    refused: list[str] = []
    for (topic, private), ids in by_topic.items():
        rows = PresenceMember.objects.using(alias).filter(topic=topic, private=private)
        # No more rows than can matter are read. A new row may be there already, as above.
        others = set(rows.values_list("pk", flat=True)[: most + len(ids)]) - set(ids)
        refused += ids[max(0, most - len(others)) :]
    return refused


def _model(process: str, row: PresenceRow) -> PresenceMember:
    return PresenceMember(
        id=row.entry.id,
        process_id=process,
        topic=row.topic,
        private=row.private,
        key=row.entry.key,
        version=row.entry.version,
        meta=msgspec.json.decode(row.entry.meta),
        user_id=row.user_id,
    )
