"""Consecutive entries of the log as one message on the bus. Pure.

The tag and the order of the fields are spoken between versions during a rolling restart.
"""

from __future__ import annotations

import msgspec

from realtime.wal.entry import Relation, WalRow


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    """Consecutive entries after `after`, with the relations they name.

    Without rows it says where the head of this epoch is: a resync if the epoch is a new one.
    """

    epoch: str
    after: int
    rows: list[WalRow]
    relations: list[Relation]
