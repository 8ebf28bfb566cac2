"""Finds the entries without a number on PostgreSQL, at a cost that depends on new entries only.

An open transaction anywhere on the server keeps dead rows alive, and its own rows are in the index
before they are visible. A search of the backlog from its beginning reads both at every look: after
an hour of one idle transaction a look takes seconds. So a sequencer remembers a database snapshot
all of whose entries are numbered. Entries that become visible later belong to a transaction that
was running in this snapshot, or to a newer one; transactions that still run are skipped unread.

The fragments below decide within one statement and by its snapshot. If one statement found a
transaction finished and the next one read it, a transaction that depends on it could be numbered
first. The caller looks at everything from time to time.
"""

from __future__ import annotations

from dataclasses import dataclass

SNAPSHOT = "pg_current_snapshot()::text"

# Each condition is its own range of the index on (txid, id). Parameters: `Visibility.parameters`.
_CONDITIONS = (
    "w.txid >= %s::bigint",
    "w.txid IN (SELECT tx FROM unnest(%s::bigint[]) AS tx"
    " WHERE pg_visible_in_snapshot(tx::text::xid8, pg_current_snapshot()))",
    "w.txid IS NULL",
)
_NEW = "SELECT {columns} FROM realtime_wal AS w WHERE w.seq IS NULL AND {condition}"

EVERYTHING = "SELECT {columns} FROM realtime_wal AS w WHERE w.seq IS NULL"


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


def rows(columns: str, seen: Visibility | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for entries without a number that the snapshot `seen` does not show."""
    if seen is None:
        return EVERYTHING.format(columns=columns), []
    parts = (_NEW.format(columns=columns, condition=condition) for condition in _CONDITIONS)
    return " UNION ALL ".join(parts), [*seen.parameters]


def any_row(seen: Visibility | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for whether there is any such entry."""
    if seen is None:
        # In the order of the index, so that the planner uses the index.
        everything = "SELECT 1 FROM realtime_wal WHERE seq IS NULL ORDER BY txid, id LIMIT 1"
        return f"(({everything}) IS NOT NULL)", []
    parts = (
        f"EXISTS ({_NEW.format(columns='1', condition=condition)})" for condition in _CONDITIONS
    )
    return f"({' OR '.join(parts)})", [*seen.parameters]
