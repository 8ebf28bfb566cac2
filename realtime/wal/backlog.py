"""The entries that have no number yet, for other readers than the sequencer.

They are found as the sequencer finds them, from the snapshot in the head row on, so a look costs
what is new and not what is kept.
"""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.head import find_row
from realtime.wal.vendor import Query, vendor_of


def unnumbered(connection: BaseDatabaseWrapper, columns: str = "w.*") -> Query:
    """A SELECT of these columns of the committed entries `w` without a number, in no order. Raises
    what the database raises."""
    numbering = vendor_of(connection).numbering()
    row = find_row(connection)
    seen = "" if row is None else row.known_snapshot(connection)
    if seen:
        numbering.remember(seen)
    return numbering.unnumbered(columns)


def count(connection: BaseDatabaseWrapper, most: int | None = None) -> int:
    """How many committed entries have no number yet; at most `most`."""
    entries, parameters = unnumbered(connection, "1")
    limit = "" if most is None else f" LIMIT {most:d}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COUNT(*) FROM (SELECT 1 FROM ({entries}) AS w{limit}) AS b", parameters
        )
        return int(cursor.fetchone()[0])
