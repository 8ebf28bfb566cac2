"""A change as one audience sees it, not encoded: what code of this process gets in place of a
frame. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from realtime.event_log.event import DatabaseEvent

# About what an event occupies beside its images.
_OVERHEAD = 500


@dataclass(frozen=True, slots=True)
class SeenChange:
    """These columns of an event, with or without its old row, as which operation. `snapshot`: the
    row was there before the subscription. `tx` is the receipt of the transaction, to the user who
    wrote it."""

    event: DatabaseEvent
    select: tuple[str, ...] | None
    show_old: bool
    op: str
    snapshot: bool = False
    tx: str | None = None

    def __len__(self) -> int:
        """About how many bytes it occupies, as for a frame."""
        return _OVERHEAD + self.event.size
