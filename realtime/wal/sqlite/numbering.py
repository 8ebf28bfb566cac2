"""Entries without a number on SQLite: in the order of their ids, which is that of commits.

Text only; nothing is remembered.
"""

from __future__ import annotations

from realtime.wal.vendor import Query

# Writers are serialised: no transaction is inside another, so any prefix is whole transactions.
_RANKED = """
WITH backlog AS (
    SELECT id, captured_us FROM realtime_wal WHERE seq IS NULL ORDER BY txid, id LIMIT %s
), ranked AS (
    SELECT id, captured_us, ROW_NUMBER() OVER (ORDER BY id) AS rank FROM backlog
)
"""
_WAITING = "((SELECT 1 FROM realtime_wal WHERE seq IS NULL ORDER BY txid, id LIMIT 1) IS NOT NULL)"


class SqliteNumbering:
    """See `realtime.wal.vendor.Numbering`."""

    snapshot = "NULL"
    looks_at_everything = True

    def forget(self) -> None:
        """Nothing is remembered."""

    def went_back(self, snapshot: str) -> bool:
        return False

    def remember(self, snapshot: str) -> None:
        """Does nothing: a look at everything is cheap."""

    def waiting(self) -> Query:
        return _WAITING, []

    def ranked(self) -> Query:
        return _RANKED, []

    def lock(self, mine: str) -> tuple[str, ...]:
        # An update takes the write lock, whatever the row then holds.
        return (
            f"UPDATE realtime_head SET seq = seq WHERE id = 1{mine}",
            "SELECT seq, commit_us, NULL, (SELECT MAX(seq) FROM realtime_wal)"
            f" FROM realtime_head WHERE id = 1{mine}",
        )
