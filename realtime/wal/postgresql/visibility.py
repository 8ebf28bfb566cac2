"""Finds the entries without a number on PostgreSQL, at a cost that depends on new entries only.

An entry is never updated, so nothing in it and in no index of it says whether it has a number. But
a sequencer knows a database snapshot all of whose entries are numbered; the head row keeps one for
those that begin. Entries that become visible later belong to a transaction that was running in
this snapshot, or to a newer one, so they are few and an index on the transaction finds them;
transactions that still run are skipped unread. Of these entries, those without a number are new: an
older snapshot than necessary costs time and is as right. The ids of transactions are those of 64
bits, which do not come round, and those of top-level transactions, also for what a savepoint or a
prepared transaction wrote.

The fragments below decide within one statement and by its snapshot. If one statement found a
transaction finished and the next one read it, a transaction that depends on it could be numbered
first.

Ids of transactions in rows that were restored from another server mean nothing here. The head row
that came with them is not this log's (`Vendor.is_own`), so an epoch begins, no snapshot is known,
and all entries are compared with all numbers once. Later looks do not read such rows either: an
entry that can be seen has the id of a transaction that is over, or of the reader's own.
"""

from __future__ import annotations

from dataclasses import dataclass

SNAPSHOT = "pg_current_snapshot()::text"

# Above the id of every transaction of which the statement sees rows.
_NEWEST = (
    "GREATEST(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
    " pg_current_xact_id_if_assigned()::text::bigint + 1)"
)
# Each condition is its own range of the index on txid. Parameters: `Visibility.parameters`.
_CONDITIONS = (
    f"w.txid >= %s::bigint AND w.txid < {_NEWEST}",
    "w.txid IN (SELECT tx FROM unnest(%s::bigint[]) AS tx"
    " WHERE pg_visible_in_snapshot(tx::text::xid8, pg_current_snapshot()))",
    "w.txid IS NULL",
)
EVERYTHING = (
    "SELECT {columns} FROM realtime_wal AS w WHERE"
    " NOT EXISTS (SELECT 1 FROM realtime_wal_number AS n WHERE n.entry_id = w.id)"
)
_NEW = EVERYTHING + " AND {condition}"


# Running transactions that a shortened snapshot names.
_RUNNING_MOST = 64


@dataclass(frozen=True, slots=True)
class Visibility:
    """A snapshot all of whose entries are numbered: the id of the next transaction, and the ids of
    those that were running."""

    next: int
    running: tuple[int, ...]

    @property
    def parameters(self) -> tuple[int, list[int]]:
        return (self.next, list(self.running))


def parse(snapshot: str) -> Visibility:
    """What a `pg_snapshot` shows, from its text, "xmin:xmax:xid,xid"."""
    _, following, running = snapshot.split(":")
    return Visibility(int(following), tuple(map(int, running.split(","))) if running else ())


def shortened(snapshot: str) -> str:
    """The snapshot up to the first running transaction that is too many: it and all later ones
    count as not seen."""
    lowest, _, running = snapshot.split(":")
    ids = running.split(",")
    if len(ids) <= _RUNNING_MOST:
        return snapshot
    return f"{lowest}:{ids[_RUNNING_MOST]}:{','.join(ids[:_RUNNING_MOST])}"


def rows(columns: str, seen: Visibility | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for entries without a number that the snapshot `seen` does not show."""
    if seen is None:
        return EVERYTHING.format(columns=columns), []
    parts = (_NEW.format(columns=columns, condition=condition) for condition in _CONDITIONS)
    return " UNION ALL ".join(parts), [*seen.parameters]


def any_row(seen: Visibility | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for whether there is any such entry."""
    if seen is None:
        return f"EXISTS ({EVERYTHING.format(columns='1')})", []
    parts = (
        f"EXISTS ({_NEW.format(columns='1', condition=condition)})" for condition in _CONDITIONS
    )
    return f"({' OR '.join(parts)})", [*seen.parameters]
