"""Where to look for entries without a number on PostgreSQL, so that a look costs what is new.

An open transaction anywhere on the server keeps dead rows alive, and its own rows are there before
they can be seen. A search of the backlog from its beginning passes over both at every look: after
an hour of one idle transaction a look takes seconds. So a sequencer remembers a snapshot of which
it numbered everything. What becomes visible later belongs to a transaction that this snapshot knew
as running, or to a newer one; of the former, those still running are passed over unread.

The fragments below decide within the statement they stand in, and by its snapshot: a transaction
found finished by one statement and read by the next would let a dependent one overtake it.
Never trusted for ever: the caller looks at everything from time to time.
"""

from __future__ import annotations

from dataclasses import dataclass

SNAPSHOT = "pg_current_snapshot()::text"

# Each place has its own range of the index on (txid, id). Parameters: `Horizon.parameters`.
_PLACES = (
    "w.txid >= %s::bigint",
    "w.txid IN (SELECT tx FROM unnest(%s::bigint[]) AS tx"
    " WHERE pg_visible_in_snapshot(tx::text::xid8, pg_current_snapshot()))",
    "w.txid IS NULL",
)
_NEW = "SELECT {columns} FROM realtime_wal AS w WHERE w.seq IS NULL AND {place}"

EVERYTHING = "SELECT {columns} FROM realtime_wal AS w WHERE w.seq IS NULL"


@dataclass(frozen=True, slots=True)
class Horizon:
    """A snapshot everything of which is numbered: the next transaction, and those that ran."""

    next: int
    running: tuple[int, ...]

    @property
    def parameters(self) -> tuple[int, list[int]]:
        return (self.next, list(self.running))


def parse(snapshot: str) -> Horizon:
    """The horizon of a `pg_snapshot` as text, "xmin:xmax:xid,xid"."""
    _, following, running = snapshot.split(":")
    return Horizon(int(following), tuple(map(int, running.split(","))) if running else ())


def rows(columns: str, horizon: Horizon | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for entries without a number that `horizon` did not see."""
    if horizon is None:
        return EVERYTHING.format(columns=columns), []
    places = (_NEW.format(columns=columns, place=place) for place in _PLACES)
    return " UNION ALL ".join(places), [*horizon.parameters]


def any_row(horizon: Horizon | None) -> tuple[str, list[int | list[int]]]:
    """SQL and parameters for whether there is any such entry."""
    if horizon is None:
        # In the order of the index, so that no plan but the index is worth considering.
        everything = "SELECT 1 FROM realtime_wal WHERE seq IS NULL ORDER BY txid, id LIMIT 1"
        return f"(({everything}) IS NOT NULL)", []
    places = (f"EXISTS ({_NEW.format(columns='1', place=place)})" for place in _PLACES)
    return f"({' OR '.join(places)})", [*horizon.parameters]
