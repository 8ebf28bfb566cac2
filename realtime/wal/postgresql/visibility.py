"""Finds the entries without a number on PostgreSQL, at a cost that depends on new entries only.

An entry is never updated, so nothing in it and in no index of it says whether it has a number. But
a sequencer knows a database snapshot all of whose entries are numbered; the head row keeps one for
those that begin. Entries that become visible later belong to a transaction that was running in
this snapshot, or to a newer one, so they are few and an index on the transaction finds them;
transactions that still run are skipped unread. Of these entries, those without a number are new: an
older snapshot than necessary costs time and is as right. The ids of transactions are those of 64
bits, which do not come round, and those of top-level transactions, also for what a savepoint or a
prepared transaction wrote.

The log is in partitions by the ids of its entries, and a look should open only the newest ones. So
a limit is remembered that all ids to come are above. An entry's id is drawn when its transaction
has its own id already, and those are given in order. So if a sequencer knows an id that was drawn
before its own transaction got one, then all later transactions write only ids above that. What a
snapshot says would not do: transactions above all that it names may have begun before it. A
transaction that runs keeps the limit that it was found with.

That holds while the sequence of ids only goes forward. It may be set back, by a restore or by
hand, and sessions may keep ids ready for later. So there are no limits where the sequence lets
sessions do so, and where it is found behind an id that was drawn before. It may have been set back
and have gone on since the last look; so now and then entries below the limits are looked for.

The fragments below decide within one statement and by its snapshot. If one statement found a
transaction finished and the next one read it, a transaction that depends on it could be numbered
first.

Ids of transactions in rows that were restored from another server mean nothing here. The head row
that came with them is not this log's (`Vendor.is_own`), so an epoch begins, no snapshot is known,
and all entries are compared with all numbers once. Later looks do not read such rows either: an
entry that can be seen has the id of a transaction that is over, or of the reader's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Below every id; as a literal with a minus in front, a bigint.
LOWEST = 1 - 2**63

# Above the id of every transaction of which the statement sees rows.
_NEWEST = (
    "GREATEST(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
    " pg_current_xact_id_if_assigned()::text::bigint + 1)"
)
# Of the transactions that were running, those that have ended. Parameter: their ids.
_ENDED = (
    "w.txid IN (SELECT tx FROM unnest(%s::bigint[]) AS tx"
    " WHERE pg_visible_in_snapshot(tx::text::xid8, pg_current_snapshot()))"
)
EVERYTHING = (
    "SELECT {columns} FROM realtime_wal AS w WHERE"
    " NOT EXISTS (SELECT 1 FROM realtime_wal_number AS n WHERE n.entry_id = w.id)"
)
_NEW = EVERYTHING + " AND {condition}"
# For a look, which finds none as a rule. The number of each entry is looked up by itself: where one
# transaction wrote much of the log, as much is expected of a running one, and a join would begin by
# reading all numbers.
_ANY_NEW = (
    "EXISTS (SELECT 1 FROM realtime_wal AS w WHERE"
    " (SELECT n.seq FROM realtime_wal_number AS n WHERE n.entry_id = w.id) IS NULL"
    " AND {condition})"
)


# Running transactions that a shortened snapshot names.
_RUNNING_MOST = 64


# Below every id where sessions keep ids ready.
_DRAWN = (
    "COALESCE((SELECT CASE WHEN s.seqcache = 1 AND s.seqincrement > 0"
    " THEN COALESCE(pg_sequence_last_value(s.seqrelid), 0) END FROM pg_sequence AS s"
    # As a subquery, or its name would be looked up for each sequence of the database.
    " WHERE s.seqrelid = (SELECT pg_get_serial_sequence('realtime_wal', 'id')::regclass)),"
    f" {LOWEST})"
)
SNAPSHOT = f"pg_current_snapshot()::text || '@' || {_DRAWN}"
# Of a transaction that has an id, or gets one.
OWN_SNAPSHOT = f"{SNAPSHOT} || '!' || pg_current_xact_id()::text"


@dataclass(frozen=True, slots=True)
class Mark:
    """Transactions with higher ids than `tx` write only entries with ids above `above`."""

    tx: int
    above: int


@dataclass(frozen=True, slots=True)
class Visibility:
    """A snapshot all of whose entries are numbered: the id of the next transaction, and the ids of
    those that were running, each with an id below all entries that it writes from there on.
    Transactions from `next` on write ids above `above`. `mark` is good for still later ones.
    `drawn` is an id that was drawn when the snapshot was read, `own` the transaction that read
    it, if it has an id."""

    next: int
    running: Mapping[int, int]
    above: int = LOWEST
    mark: Mark | None = None
    drawn: int = LOWEST
    own: int | None = None

    @property
    def lowest(self) -> int:
        """Every id that is yet to become visible is above this one."""
        return min((self.above, *self.running.values()))

    @property
    def conditions(self) -> list[tuple[str, list[Any]]]:
        """What new entries fulfil one of, each a range of the index on txid, with its
        parameters."""
        later = f"w.id > %s AND w.txid >= %s::bigint AND w.txid < {_NEWEST}"
        found: list[tuple[str, list[Any]]] = [
            (later, [self.above, self.next]),
            ("w.id > %s AND w.txid IS NULL", [self.lowest]),
        ]
        if self.running:
            found.append((f"w.id > %s AND {_ENDED}", [self.lowest, list(self.running)]))
        return found

    def limit_of(self, tx: int) -> int:
        """An id below all that this transaction is yet to write, if it is not before `next`."""
        marked = self.mark is not None and self.mark.tx < tx
        return max(self.above, self.mark.above) if self.mark and marked else self.above

    def unlimited(self) -> Visibility:
        """The snapshot without what is known of ids."""
        return Visibility(self.next, dict.fromkeys(self.running, LOWEST))

    def followed_by(self, later: Visibility) -> Visibility:
        """A later snapshot, with what this one knows of ids that were drawn."""
        running = {tx: self.running.get(tx, self.limit_of(tx)) for tx in later.running}
        # What was drawn when this one was read was drawn before the later one's transaction began.
        mark = self.mark if later.own is None else Mark(later.own, self.drawn)
        above = self.limit_of(later.next)
        return Visibility(later.next, running, above, mark, later.drawn)

    def shortened(self) -> Visibility:
        """A snapshot that shows nothing which this one does not: it ends before the first running
        transaction that is too many, and all later ones count as not seen."""
        ids = sorted(self.running)
        if len(ids) <= _RUNNING_MOST:
            return self
        kept = {tx: self.running[tx] for tx in ids[:_RUNNING_MOST]}
        return Visibility(ids[_RUNNING_MOST], kept, self.lowest, self.mark, self.drawn)

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        first = min(self.running, default=self.next)
        running = ",".join(f"{tx}>{above}" for tx, above in sorted(self.running.items()))
        mark = "" if self.mark is None else f"@{self.mark.tx}>{self.mark.above}"
        return f"{first}:{self.next}:{running}@{self.drawn}@{self.above}{mark}"


def parse(text: str) -> Visibility:
    """A snapshot from its text: "xmin:xmax:xid,xid", then "@" and an id that was drawn, and "!" and
    the own transaction if it has an id. One that was kept has limits as well: ">" and one behind
    each running transaction, "@" and that of later ones, "@" and a mark. What is not told is not
    known."""
    shown, *known = text.split("@")
    _, following, running = shown.split(":")
    limits: dict[int, int] = {}
    for one in running.split(",") if running else ():
        tx, _, limit = one.partition(">")
        limits[int(tx)] = int(limit) if limit else LOWEST
    drawn, _, own = known[0].partition("!") if known else ("", "", "")
    mark = None
    if len(known) > 2:
        tx, _, limit = known[2].partition(">")
        mark = Mark(int(tx), int(limit))
    return Visibility(
        next=int(following),
        running=limits,
        above=int(known[1]) if len(known) > 1 else LOWEST,
        mark=mark,
        drawn=int(drawn) if drawn else LOWEST,
        own=int(own) if own else None,
    )


def rows(columns: str, seen: Visibility | None) -> tuple[str, list[Any]]:
    """SQL and parameters for entries without a number that the snapshot `seen` does not show."""
    if seen is None:
        return EVERYTHING.format(columns=columns), []
    parts = [_NEW.format(columns=columns, condition=one) for one, _ in seen.conditions]
    return " UNION ALL ".join(parts), _parameters(seen)


def any_hidden(since: Visibility, seen: Visibility) -> tuple[str, list[Any]]:
    """SQL and parameters for whether an entry that `since` does not show has no number, and an id
    below the limits of `seen`."""
    condition = f"w.id <= %s AND (w.txid >= %s::bigint AND w.txid < {_NEWEST} OR {_ENDED})"
    parameters = [seen.above, since.next, list(since.running)]
    return f"EXISTS ({_NEW.format(columns='1', condition=condition)})", parameters


def any_row(seen: Visibility | None) -> tuple[str, list[Any]]:
    """SQL and parameters for whether there is any such entry."""
    if seen is None:
        return f"EXISTS ({EVERYTHING.format(columns='1')})", []
    parts = [_ANY_NEW.format(condition=one) for one, _ in seen.conditions]
    return f"({' OR '.join(parts)})", _parameters(seen)


def _parameters(seen: Visibility) -> list[Any]:
    return [value for _, values in seen.conditions for value in values]
