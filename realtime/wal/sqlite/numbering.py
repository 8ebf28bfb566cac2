"""Entries without a number on SQLite: those behind the last one that has a number.

There is one writer at a time, and an id is drawn while it writes. AUTOINCREMENT gives no id twice
and none below one that was given, whatever was deleted. So ids are in the order of commits: what
becomes visible later has a larger id. Text only; nothing is remembered.
"""

from __future__ import annotations

from realtime.wal.vendor import Query

_UNNUMBERED = """
SELECT {columns} FROM realtime_wal AS w WHERE w.id > COALESCE(
    (SELECT n.entry_id FROM realtime_wal_number AS n ORDER BY n.seq DESC LIMIT 1),
    -9223372036854775808
)
"""
# Writers are serialised: no transaction is inside another, so any prefix is whole transactions.
_RANKED = f"""
WITH backlog AS (
    {_UNNUMBERED.format(columns="w.id, w.captured_us")} ORDER BY w.id LIMIT %s
), ranked AS (
    SELECT id, captured_us, ROW_NUMBER() OVER (ORDER BY id) AS rank FROM backlog
)
"""
_WAITING = f"EXISTS ({_UNNUMBERED.format(columns='1')})"


class SqliteNumbering:
    """See `realtime.wal.vendor.Numbering`."""

    snapshot = "NULL"
    looks_at_everything = False

    def forget(self) -> None:
        """Nothing is remembered."""

    def went_back(self, snapshot: str) -> bool:
        return False

    def ids_went_back(self, snapshot: str) -> bool:
        return False

    def hidden(self) -> Query | None:
        return None

    def trust_ids(self) -> None:
        """No order of ids is relied on."""

    def distrust_ids(self) -> None:
        """No order of ids is relied on."""

    def remember(self, snapshot: str) -> None:
        """Does nothing: the numbers themselves say what is new."""

    def shortened(self, snapshot: str) -> str:
        return snapshot

    def unnumbered(self, columns: str) -> Query:
        return _UNNUMBERED.format(columns=columns), []

    def waiting(self) -> Query:
        return _WAITING, []

    def ranked(self) -> Query:
        return _RANKED, []

    def lock(self, mine: str) -> tuple[str, ...]:
        # An update takes the write lock, whatever the row then holds.
        return (
            f"UPDATE realtime_head SET seq = seq WHERE id = 1{mine}",
            "SELECT seq, commit_us, NULL, (SELECT MAX(seq) FROM realtime_wal_number)"
            f" FROM realtime_head WHERE id = 1{mine}",
        )
