"""Bounds of a replay, and of the time that its client may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """What one replay may read, and how long it waits for its client. None is no limit."""

    #: Events between a cursor and the head.
    events: int | None = None
    #: Rows of one snapshot, and rows that come and go when a live set moves.
    rows: int | None = None
    #: Seconds in which a client may take no rows of a snapshot, beside the time that a slow link
    #: needs for them.
    patience_seconds: float = 30.0
    #: The same while other snapshots wait for the memory that these rows occupy.
    crowded_patience_seconds: float = 3.0
    #: Bytes a second of the slowest link. A client gets the time that its rows need on it, beside
    #: the patience.
    slowest_link: int = 65_536
