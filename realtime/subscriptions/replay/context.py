"""What every replay of a process works with. Owns none of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Planners
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.util.counters import Counters
from realtime.util.fair_share import FairShare
from realtime.util.time_slice import SLICE_SECONDS

logger = logging.getLogger("realtime.subscribers")


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """What one replay may read, and how long its client is waited for. None is no limit."""

    #: Events between a cursor and the head.
    events: int | None = None
    #: Rows of one snapshot, and rows that come and go when a live set moves.
    rows: int | None = None
    #: Seconds that a client may take no rows of a snapshot, beside what so slow a link needs.
    patience_seconds: float = 30.0
    #: The same while other snapshots wait for the memory that these rows take.
    crowded_patience_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class ReplayContext:
    """What replays read from, and what bounds them."""

    log: EventLog
    reader: LogReader
    sets: LiveSetStore
    pictures: SnapshotReader
    planners: Planners
    bounds: ReplayBounds
    counters: Counters
    #: Matching and framing on the event loop, charged in seconds.
    loop: FairShare = field(default_factory=lambda: FairShare(1, 1, SLICE_SECONDS))


def evaluation_failed(subscription: Subscription, error: Exception) -> None:
    """Log a predicate that raised. It denies to its own subscribers and disturbs no others."""
    logger.error(
        "a policy or filter on %s cannot be evaluated and denies: %s",
        subscription.table,
        error,
        extra={"action": "evaluation_failed"},
    )
