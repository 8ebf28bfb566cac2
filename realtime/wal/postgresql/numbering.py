"""Entries without a number on PostgreSQL: transactions in the order of their largest id.

SQL text, and the snapshot that is remembered (see `visibility`).
"""

from __future__ import annotations

from realtime.wal.postgresql import visibility
from realtime.wal.postgresql.visibility import Visibility
from realtime.wal.vendor import Query

# After so long PostgreSQL ends the session of a sequencer that hangs while it locks the head row
# (stopped, swapped out, cut off), so that a standby can lead.
_STANDSTILL_MS = 2_000

# A transaction is numbered whole: if its first entry is within the batch. So a batch ends between
# transactions. No part of the ranking is joined with another: the planner misjudges how many
# entries wait, and would choose nested loops.
_RANKED = """
WITH backlog AS (
    SELECT id, captured_us, tx, MAX(id) OVER (PARTITION BY tx) AS last_id FROM ({backlog}) AS b
), ordered AS (
    SELECT id, captured_us, tx, ROW_NUMBER() OVER (ORDER BY last_id, id) AS rank FROM backlog
), whole AS (
    SELECT id, captured_us, rank, MIN(rank) OVER (PARTITION BY tx) AS first_rank FROM ordered
), ranked AS (
    SELECT id, captured_us, rank FROM whole WHERE first_rank <= %s
)
"""
_COLUMNS = "w.id, w.captured_us, COALESCE(w.txid, -w.id) AS tx"

# A lock and not an update: an open transaction would keep every old version of the row.
_LOCK = f"""
SELECT seq, commit_us, {visibility.OWN_SNAPSHOT}, (SELECT MAX(seq) FROM realtime_wal_number)
FROM realtime_head
WHERE id = 1{{mine}}
  AND set_config('idle_in_transaction_session_timeout', '{_STANDSTILL_MS}', true) IS NOT NULL
FOR UPDATE
"""


class PostgresqlNumbering:
    """See `realtime.wal.vendor.Numbering`. `seen` is the snapshot to begin with, if any."""

    snapshot = visibility.SNAPSHOT

    def __init__(self, seen: Visibility | None = None) -> None:
        self._seen = seen
        # Every entry that it shows has a number, whatever its id is.
        self._checked = seen

    @property
    def looks_at_everything(self) -> bool:
        return self._seen is None

    def forget(self) -> None:
        self._seen = self._checked = None

    def went_back(self, snapshot: str) -> bool:
        # Another server, with its own history, has taken over the address.
        return self._seen is not None and visibility.parse(snapshot).next < self._seen.next

    def ids_went_back(self, snapshot: str) -> bool:
        if self._seen is None or visibility.parse(snapshot).drawn >= self._seen.drawn:
            return False
        self.distrust_ids()
        return True

    def hidden(self) -> Query | None:
        if self._seen is None or self._checked is None:
            return None
        return visibility.any_hidden(self._checked, self._seen)

    def trust_ids(self) -> None:
        self._checked = self._seen

    def distrust_ids(self) -> None:
        if self._checked is not None:
            self._seen = self._checked = self._checked.unlimited()

    def remember(self, snapshot: str) -> None:
        self._seen = self._following(snapshot)
        if self._checked is None:
            self._checked = self._seen

    def shortened(self, snapshot: str) -> str:
        return self._following(snapshot).shortened().text

    def _following(self, snapshot: str) -> Visibility:
        found = visibility.parse(snapshot)
        # One that was kept knows the limits of its transactions itself.
        return found if self._seen is None else self._seen.followed_by(found)

    def unnumbered(self, columns: str) -> Query:
        return visibility.rows(columns, self._seen)

    def waiting(self) -> Query:
        return visibility.any_row(self._seen)

    def ranked(self) -> Query:
        backlog, parameters = visibility.rows(_COLUMNS, self._seen)
        return _RANKED.format(backlog=backlog), parameters

    def lock(self, mine: str) -> tuple[str, ...]:
        return (_LOCK.format(mine=mine),)
