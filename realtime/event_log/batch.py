"""Consecutive entries of the log as one message on the bus. Pure.

Processes of two versions exchange batches during a rolling restart, so the tag and the order of the
fields stay.
"""

from __future__ import annotations

import msgspec

from realtime.wal.entry import Relation, WalRow


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    """Consecutive entries after `after`, with the relations they name.

    Without rows it names the head of this epoch; a new epoch means a resync.
    """

    epoch: str
    after: int
    rows: list[WalRow]
    relations: list[Relation]

    @property
    def weight(self) -> int:
        """How many rows the batch counts for: a large row counts for one more each 4 KiB."""
        return sum(1 + row.size // 4096 for row in self.rows)
