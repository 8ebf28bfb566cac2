"""Reads the entries of a table or of one row: from the log, and from the table of histories, which
has those up to the position to which it was copied.

The log has no index by rows, because every write would pay for it. So it is read backwards in spans
of numbers. Everything here runs in a database thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import DatabaseEvent, to_event
from realtime.event_log.table import READ_BYTES, UnknownRelation, numbered_ids, relations
from realtime.models import HistoryTable, WalRelation
from realtime.row_history import keeping
from realtime.row_history.errors import HistoryLost
from realtime.util.utf8 import repaired_or_none
from realtime.wal.backlog import unnumbered
from realtime.wal.capture import table_name_of
from realtime.wal.entry import WalRow
from realtime.wal.head import Head, read_head
from realtime.wal.vendor import vendor_of

# Numbers of the log that one query looks at, and entries that it gives at most: fewer where they
# are large, so that what is held does not grow with the size of rows.
SPAN = 20_000
_PAGE = 500
_FIRST_PAGE = 32

# Kinds whose keys are written in the log as `_key_text` writes them.
_PLAIN_KEYS = frozenset({Kind.INT, Kind.TEXT, Kind.UUID})

_COLUMNS = "w.relation_id, w.op, {old}, {new}, w.actor, w.txid"
_LOG = """
SELECT n.entry_id, n.seq, n.commit_us, {columns}
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id
WHERE n.seq > %s AND n.seq <= %s AND w.id >= %s AND w.id <= %s
    AND w.relation_id IN ({relations}){row}
ORDER BY n.seq {order} LIMIT {limit:d}
"""
_KEPT = """
SELECT 0, w.seq, w.commit_us, {columns} FROM realtime_history AS w
WHERE w.table_id = %s AND w.seq > %s AND w.seq <= %s AND w.relation_id IN ({relations}){row}
ORDER BY w.seq {order} LIMIT {limit:d}
"""
_WAITING = """
SELECT w.id, 0, 0, {columns} FROM ({unnumbered}) AS w
WHERE w.relation_id IN ({relations}){row} ORDER BY w.id
"""

_LOG_AT = """
SELECT n.entry_id, n.seq, n.commit_us, {columns}
FROM realtime_wal_number AS n JOIN realtime_wal AS w ON w.id = n.entry_id WHERE n.seq IN ({seqs})
"""
_KEPT_AT = """
SELECT 0, w.seq, w.commit_us, {columns} FROM realtime_history AS w WHERE w.seq IN ({seqs})
"""

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry with what an event does not tell. `seq` of its event is 0 while it has no number.
    `id` is that of the log, 0 for one that is kept apart from it."""

    id: int
    event: DatabaseEvent
    txid: int | None

    def key(self, image: str) -> Key | None:
        """The key in its "old" or "new" image; None for no image, or a key that cannot be read."""
        row = getattr(self.event, image)
        if row is None:
            return None
        found = tuple(row.get(name) for name in self.event.relation.key)
        return None if None in found or not found else found


@dataclass(frozen=True, slots=True)
class TableEntries:
    """Where the entries of one table are: the log, from `copied` on if its history is kept."""

    alias: str
    relations: tuple[str, ...]
    head: Head
    kept: HistoryTable | None

    @property
    def lost_seq(self) -> int:
        """Every entry after this seq is there."""
        if self.kept is not None and self.kept.active:
            return self.kept.lost_seq
        return keeping.lost_before(connections[self.alias])

    @property
    def copied(self) -> int:
        return 0 if self.kept is None else self.kept.copied_seq

    # --- the entries of the table ---------------------------------------------------------------

    def after(self, seq: int) -> Iterator[Entry]:
        """Every entry of the table after `seq`, those without a number last, in the order of each
        row's changes. What the connection itself has not committed yet is among them."""
        waiting = self.waiting()
        seen: set[int] = set()
        for entry in self._ascending(seq):
            seen.add(entry.id)
            yield entry
        yield from (entry for entry in waiting if entry.id not in seen)

    def _ascending(self, seq: int) -> Iterator[Entry]:
        limit = _FIRST_PAGE
        while seq < self.copied and self.kept is not None:
            page = self._kept(seq, self.copied, "ASC", None, limit)
            yield from page
            if len(page) < limit:
                break
            seq, limit = page[-1].event.seq, _next_limit(page)
        seq = max(seq, self.copied)
        # What got its number since the head was read is not among `waiting` in every case.
        last = read_head(connections[self.alias]).seq
        while seq < last:
            until = min(seq + SPAN, last)
            page = self._log(seq, until, "ASC", None, limit)
            yield from page
            seq = page[-1].event.seq if len(page) == limit else until
            limit = _next_limit(page)

    def waiting(self, key: Key | None = None) -> list[Entry]:
        """The entries that have no number yet, oldest first."""
        connection = connections[self.alias]
        inner, parameters = unnumbered(connection)
        row, more = self._of_row(key)
        sql = _WAITING.format(
            columns=_columns(connection),
            unnumbered=inner,
            relations=_marks(self.relations),
            row=row,
        )
        return self._read(sql, [*parameters, *self.relations, *more])

    # --- the entries of a row -------------------------------------------------------------------

    def of_key(self, key: Key, upto: int, down_to: int) -> Iterator[Entry | int]:
        """Entries with down_to < seq <= upto that have this key in the newer of their images, and
        those that emptied the table; the newest first. Between them the seq down to which all were
        looked at."""
        seq = upto
        limit = _FIRST_PAGE
        log_ends = max(down_to, self.copied)
        while seq > log_ends:
            after = max(seq - SPAN, log_ends)
            page = self._log(after, seq, "DESC", key, limit)
            yield from page
            seq = page[-1].event.seq - 1 if len(page) == limit else after
            limit = _next_limit(page)
            yield seq
        while self.kept is not None and seq > down_to:
            page = self._kept(down_to, seq, "DESC", key, limit)
            yield from page
            seq = page[-1].event.seq - 1 if len(page) == limit else down_to
            limit = _next_limit(page)
            yield seq

    # --- queries --------------------------------------------------------------------------------

    def _log(self, after: int, upto: int, order: str, key: Key | None, limit: int) -> list[Entry]:
        connection = connections[self.alias]
        # By these limits only the partitions that hold them are read.
        ids = numbered_ids(connection, after, upto)
        if ids is None or not self.relations:
            return []
        row, more = self._of_row(key)
        sql = _LOG.format(
            columns=_columns(connection),
            relations=_marks(self.relations),
            row=row,
            order=order,
            limit=limit,
        )
        return self._read(sql, [after, upto, *ids, *self.relations, *more])

    def _kept(self, after: int, upto: int, order: str, key: Key | None, limit: int) -> list[Entry]:
        text = None if key is None else _key_text(key, self._kinds())
        if text is None:
            return self._kept_where("", [], after, upto, order, limit)
        # One query each, so that the index by rows gives both in order.
        start = text[: keeping.KEY_START]
        found = [
            *self._kept_where(
                " AND w.key_start = %s AND w.pk_text = %s", [start, text], after, upto, order, limit
            ),
            *self._kept_where(" AND w.key_start IS NULL", [], after, upto, order, limit),
        ]
        found.sort(key=lambda entry: entry.event.seq, reverse=order == "DESC")
        return found[:limit]

    def _kept_where(
        self, row: str, more: list[Any], after: int, upto: int, order: str, limit: int
    ) -> list[Entry]:
        assert self.kept is not None
        sql = _KEPT.format(
            columns=_columns(connections[self.alias]),
            relations=_marks(self.relations),
            row=row,
            order=order,
            limit=limit,
        )
        return self._read(sql, [self.kept.pk, after, upto, *self.relations, *more])

    def _of_row(self, key: Key | None) -> tuple[str, list[Any]]:
        text = None if key is None else _key_text(key, self._kinds())
        return ("", []) if text is None else (" AND (w.pk_text = %s OR w.pk_text IS NULL)", [text])

    def _kinds(self) -> Sequence[Kind]:
        """The kinds of the key, if it is one column that always had the same one."""
        found = {
            tuple(relation.kinds[name] for name in relation.key)
            for relation in map(relations.__getitem__, self.relations)
        }
        return found.pop() if len(found) == 1 else ()

    def _read(self, sql: str, parameters: list[Any]) -> list[Entry]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql, parameters)
            return [_entry(row) for row in cursor.fetchall()]


def _next_limit(page: Sequence[Entry]) -> int:
    """How many entries to read next, if they are as large as these."""
    if not page:
        return _PAGE
    size = sum(entry.event.size for entry in page) // len(page)
    return max(1, min(_PAGE, READ_BYTES // (size + 1)))


def entries_of(alias: str, model: type[models.Model]) -> TableEntries:
    """Where the entries of this model's table are. Raises HistoryLost."""
    schema, table = table_name_of(model)
    names = {"schema_name": schema, "table_name": table}
    kept = HistoryTable.objects.using(alias).filter(**names).first()
    head = read_head(connections[alias])
    found = WalRelation.objects.using(alias).filter(**names).order_by("pk")
    ids = tuple(found.values_list("pk", flat=True))
    try:
        relations.load(alias, ids)
    except UnknownRelation as error:
        raise HistoryLost(str(error)) from None
    # Where only policies read the table, nothing of it was to be shown.
    shown = tuple(id_ for id_ in ids if relations[id_].published)
    return TableEntries(alias, shown, head, kept)


def entries_at(connection: BaseDatabaseWrapper, seqs: Sequence[int]) -> list[Entry]:
    """The entries with these numbers, from the log or a history, in order. Their relations have to
    be loaded."""
    if not seqs:
        return []
    found: dict[int, Entry] = {}
    for sql in (_LOG_AT, _KEPT_AT):
        with connection.cursor() as cursor:
            cursor.execute(sql.format(columns=_columns(connection), seqs=_marks(seqs)), list(seqs))
            for entry in map(_entry, cursor.fetchall()):
                found.setdefault(entry.event.seq, entry)
    return [found[seq] for seq in sorted(found)]


def _entry(row: Sequence[Any]) -> Entry:
    id_, seq, commit_us, relation_id, op, old, new, actor, txid = row
    entry = WalRow(
        seq=seq,
        commit_us=commit_us,
        relation_id=relation_id,
        op=op,
        old=repaired_or_none(old),
        new=repaired_or_none(new),
        actor=actor,
    )
    return Entry(id_, to_event(entry, relations[relation_id]), txid)


def _columns(connection: BaseDatabaseWrapper) -> str:
    as_bytes = vendor_of(connection).as_bytes
    return _COLUMNS.format(old=as_bytes("w.old"), new=as_bytes("w.new"))


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values)) or "NULL"


def _key_text(key: Key, kinds: Sequence[Kind]) -> str | None:
    """The key as the log has it beside an entry; None where only the images tell."""
    if len(key) == 1 and len(kinds) == 1 and kinds[0] in _PLAIN_KEYS:
        return str(key[0])
    return None
