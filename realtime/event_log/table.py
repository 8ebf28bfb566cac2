"""Reads of the WAL table: numbered entries, relations, and entries without a number.

Every function runs in a database thread. Never numbers, never deletes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log.event import DatabaseEvent, to_event
from realtime.event_log.position import Position
from realtime.util.database_threads import NotYetStored
from realtime.util.utf8 import repaired_or_none
from realtime.wal.backlog import count, unnumbered
from realtime.wal.entry import NOTHING_SHOWN, Relation, Shown, WalRow, narrowed
from realtime.wal.head import find_head
from realtime.wal.published import shown_now
from realtime.wal.receipts import RECEIPT_OF
from realtime.wal.vendor import vendor_of

BATCH = 1_000
# Of images, read at once.
READ_BYTES = 8 * 1024 * 1024
# Entries read first, while their sizes are not known.
_FIRST_STEP = 8


_READ = """
SELECT n.seq, n.commit_us, w.relation_id, w.op, {old}, {new}, w.actor, r.text
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id {receipt}
WHERE n.seq > %s AND n.seq <= %s AND w.id >= %s AND w.id <= %s ORDER BY n.seq LIMIT %s
"""


def backlog(connection: BaseDatabaseWrapper) -> int:
    """How many committed entries are not numbered yet."""
    return count(connection)


def oldest_seq(connection: BaseDatabaseWrapper, after: int = 0) -> int | None:
    """The lowest seq above `after` that is kept; None where no such entry is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT MIN(seq) FROM realtime_wal_number WHERE seq > %s", [after])
        found = cursor.fetchone()[0]
    return None if found is None else int(found)


def read_entries(
    connection: BaseDatabaseWrapper, after: int, upto: int, limit: int = BATCH
) -> list[WalRow]:
    """Numbered entries with after < seq <= upto, in order, at most `limit` of them."""
    vendor = vendor_of(connection)
    ids = numbered_ids(connection, after, upto, limit)
    if ids is None:
        return []
    sql = _READ.format(
        old=vendor.as_bytes("w.old"),
        new=vendor.as_bytes("w.new"),
        receipt=RECEIPT_OF.format(seq="n.seq"),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [after, upto, *ids, limit])
        return [_entry(row) for row in cursor]


def numbered_ids(
    connection: BaseDatabaseWrapper, after: int, upto: int, limit: int | None = None
) -> tuple[int, int] | None:
    """The lowest and the highest id of the first `limit` entries with after < seq <= upto; None if
    there is none. A query that names them reads only their part of a log in partitions."""
    first = "" if limit is None else f" ORDER BY seq LIMIT {limit:d}"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT MIN(entry_id), MAX(entry_id) FROM (SELECT entry_id FROM realtime_wal_number"
            f" WHERE seq > %s AND seq <= %s{first}) AS n",
            [after, upto],
        )
        lowest, highest = cursor.fetchone()
    return None if lowest is None else (int(lowest), int(highest))


def _entry(row: Sequence[Any]) -> WalRow:
    """A row of a query for seq, commit_us, relation_id, op, old, new, actor, and where it is wanted
    the text of the receipt."""
    return WalRow(*row[:4], repaired_or_none(row[4]), repaired_or_none(row[5]), *row[6:])


def seq_at(connection: BaseDatabaseWrapper, commit_us: int) -> int | None:
    """The seq of the last kept entry committed at or before `commit_us`; None if none is.

    commit_us rises with seq, so the search halves the seq range instead of needing an index.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT MIN(seq), MAX(seq) FROM realtime_wal_number")
        low, high = cursor.fetchone()
        found = None
        while low is not None and low <= high:
            middle = (low + high) // 2
            cursor.execute("SELECT commit_us FROM realtime_wal_number WHERE seq = %s", [middle])
            row = cursor.fetchone()
            if row is not None and row[0] > commit_us:
                high = middle - 1
            else:
                found, low = middle if row is not None else found, middle + 1
    return found


def read_relations(connection: BaseDatabaseWrapper, ids: Sequence[str]) -> dict[str, str]:
    """The definitions (JSON) of these relations, by id."""
    if not ids:
        return {}
    marks = ", ".join(["%s"] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, definition FROM realtime_wal_relation WHERE id IN ({marks})", list(ids)
        )
        return dict(cursor.fetchall())


# The most changes that one read of some tables returns.
_MOST_LATER = 10_000


_decode_relation = msgspec.json.Decoder(Relation).decode


class UnknownRelation(NotYetStored):
    """An entry names a relation that is not kept or is damaged, so it cannot be read."""


class Relations:
    """The relations a process has met, by id. A relation never changes, so none is dropped.

    Events have them with no more shown than what this process publishes now: a column that is
    excluded, renamed or read by policies alone is not shown of old entries either.
    """

    def __init__(self) -> None:
        self._known: dict[str, Relation] = {}
        # What was shown when the others were narrowed, and these by id.
        self._narrowed: tuple[object, dict[str, Relation]] = (None, {})

    def add(self, relations: Iterable[Relation]) -> None:
        for relation in relations:
            self._known.setdefault(relation.id, relation)

    def load(self, alias: str, ids: Iterable[str]) -> None:
        """Read the relations with these ids that are not here. In a database thread.

        Raises UnknownRelation for an id that no relation has, and for a relation that is damaged.
        """
        missing = sorted({id_ for id_ in ids if id_ not in self._known})
        found = read_relations(connections[alias], missing)
        for id_ in missing:
            if id_ not in found:
                raise UnknownRelation(f"WAL relation {id_} is missing from realtime_wal_relation")
            try:
                self._known[id_] = _decode_relation(found[id_])
            except msgspec.MsgspecError as error:
                raise UnknownRelation(f"WAL relation {id_} cannot be read: {error}") from None

    def __getitem__(self, id_: str) -> Relation:
        """As it is stored."""
        return self._known[id_]

    def now(self, id_: str) -> Relation:
        """As the events of its entries have it."""
        return self._narrow(id_, shown_now())

    def events(self, rows: Iterable[WalRow]) -> list[DatabaseEvent]:
        """The events of entries whose relations are here."""
        shown = shown_now()
        return [to_event(row, self._narrow(row.relation_id, shown)) for row in rows]

    def _narrow(self, id_: str, shown: Mapping[tuple[str, str], Shown]) -> Relation:
        by, found = self._narrowed
        if by is not shown:
            found = {}
            self._narrowed = (shown, found)
        relation = found.get(id_)
        if relation is None:
            stored = self._known[id_]
            table = shown.get((stored.schema, stored.table), NOTHING_SHOWN)
            relation = found[id_] = narrowed(stored, table)
        return relation


# The process's own. Ids are made from what they name, so databases may share them.
relations = Relations()


def read_rows(alias: str, after: int, upto: int, limit: int = BATCH) -> list[WalRow]:
    """Numbered entries after `after` up to the first number that is missing, their relations
    loaded. In a database thread. Raises UnknownRelation.

    About READ_BYTES at once, or a few where these are larger: what a process holds does not grow
    with the size of rows.
    """
    rows = _without_gap(_bounded(connections[alias], after, upto, limit))
    relations.load(alias, {row.relation_id for row in rows})
    return rows


def _bounded(connection: BaseDatabaseWrapper, after: int, upto: int, limit: int) -> list[WalRow]:
    """Entries read in steps, of which each is as large as those before it let expect to fit."""
    rows: list[WalRow] = []
    size = 0
    step = _FIRST_STEP
    while len(rows) < limit and size < READ_BYTES:
        step = min(step, limit - len(rows))
        found = read_entries(connection, after, upto, step)
        rows += found
        if len(found) < step:
            break
        size += sum(row.size for row in found)
        after = found[-1].seq
        step = max(1, int((READ_BYTES - size) / (size / len(rows) + 1)))
    return rows


def _without_gap(rows: list[WalRow]) -> list[WalRow]:
    """The first rows whose numbers follow each other: a restore may have brought back some."""
    if not rows or rows[-1].seq - rows[0].seq == len(rows) - 1:
        return rows
    first = rows[0].seq
    return [row for index, row in enumerate(rows) if row.seq == first + index]


_CAPTURED = """
SELECT COALESCE(n.seq, 0), COALESCE(n.commit_us, w.captured_us), w.relation_id, w.op, {old}, {new},
    w.actor, r.text
FROM realtime_wal AS w LEFT JOIN realtime_wal_number AS n ON n.entry_id = w.id {receipt}
WHERE w.id > %s ORDER BY n.seq IS NULL, n.seq, w.id
"""


# A number above all, for entries that have none yet.
_BEHIND_ALL = 2**63 - 1


def last_captured(connection: BaseDatabaseWrapper) -> int:
    """The highest id of an entry that this connection sees; 0 for none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COALESCE(MAX(id), 0) FROM realtime_wal")
        return int(cursor.fetchone()[0])


def read_captured(alias: str, after: int) -> list[WalRow]:
    """Every entry with an id above `after` that the connection sees, those of its own open
    transaction among them. In the order of the log; what has no number yet comes last, with seq 0.
    Raises UnknownRelation."""
    connection = connections[alias]
    as_bytes = vendor_of(connection).as_bytes
    sql = _CAPTURED.format(
        old=as_bytes("w.old"),
        new=as_bytes("w.new"),
        receipt=RECEIPT_OF.format(seq=f"COALESCE(n.seq, {_BEHIND_ALL})"),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [after])
        found = [_entry(row) for row in cursor]
    relations.load(alias, {row.relation_id for row in found})
    return found


_RELATIONS = "SELECT r.id FROM realtime_wal_relation AS r WHERE r.table_name IN ({tables})"
_LATER = """
SELECT n.seq, n.commit_us, w.relation_id, w.op, {old}, {new}, w.actor
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id
WHERE n.seq > %s AND w.relation_id IN ({relations}) ORDER BY n.seq LIMIT %s
"""
_UNNUMBERED = """
SELECT 0, 0, w.relation_id, w.op, {old}, {new}, w.actor FROM ({unnumbered}) AS w
WHERE w.relation_id IN ({relations}) ORDER BY w.id LIMIT %s
"""


def read_later(
    alias: str, tables: Collection[str], after: int, limit: int = _MOST_LATER
) -> list[WalRow]:
    """The entries of these tables that do not stand at or before `after`, in the order of each
    row's history: the numbered ones, then with seq 0 those that have no number yet.

    Raises OverflowError for more than `limit`. In a database thread.
    """
    connection = connections[alias]
    as_bytes = vendor_of(connection).as_bytes
    parts = {
        "old": as_bytes("w.old"),
        "new": as_bytes("w.new"),
        "relations": _RELATIONS.format(tables=", ".join(["%s"] * len(tables))),
    }
    entries, parameters = unnumbered(connection)
    with connection.cursor() as cursor:
        # What is numbered between the two is read twice rather than not at all.
        sql = _UNNUMBERED.format(unnumbered=entries, **parts)
        cursor.execute(sql, [*parameters, *tables, limit + 1])
        waiting = [_entry(row) for row in cursor]
        cursor.execute(_LATER.format(**parts), [after, *tables, limit + 1])
        rows = [*map(_entry, cursor), *waiting]
    if len(rows) > limit:
        raise OverflowError(f"more than {limit} changes to read at once")
    relations.load(alias, {row.relation_id for row in rows})
    return rows


_ANY_LATER = """
SELECT EXISTS (SELECT 1 FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id
WHERE n.seq > %s AND n.seq <= %s AND w.relation_id IN ({relations}))
"""
_ANY_UNNUMBERED = """
SELECT COUNT(*), COALESCE(SUM(CASE WHEN b.relation_id IN ({relations}) THEN 1 ELSE 0 END), 0)
FROM (SELECT w.relation_id FROM ({unnumbered}) AS w LIMIT %s) AS b
"""


def nothing_later(alias: str, tables: Collection[str], at: Position, most: int = BATCH) -> bool:
    """Whether every committed change of these tables stands at or before this position. False where
    that would take looking at more than `most` entries twice, and in another epoch. In a database
    thread."""
    connection = connections[alias]
    entries, parameters = unnumbered(connection, "w.relation_id")
    of_tables = _RELATIONS.format(tables=", ".join(["%s"] * len(tables)))
    with connection.cursor() as cursor:
        # What is numbered between the two is looked at twice rather than not at all.
        sql = _ANY_UNNUMBERED.format(unnumbered=entries, relations=of_tables)
        cursor.execute(sql, [*tables, *parameters, most + 1])
        waiting, concerned = cursor.fetchone()
        if waiting > most or concerned:
            return False
        head = find_head(connection)
        if head is None or head.epoch != at.epoch or not at.seq <= head.seq <= at.seq + most:
            return False
        if head.seq == at.seq:
            return True
        cursor.execute(_ANY_LATER.format(relations=of_tables), [at.seq, head.seq, *tables])
        return not cursor.fetchone()[0]
