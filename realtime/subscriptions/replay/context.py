"""What every replay of a process works with. Owns none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.planner import Planners
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.util.counters import Counters


@dataclass(frozen=True, slots=True)
class ReplayContext:
    """Limits count events and rows; None is no limit."""

    log: EventLog
    reader: LogReader
    sets: LiveSetStore
    pictures: SnapshotReader
    planners: Planners
    on_failure: Callable[[Subscription, Exception], None]
    replay_events: int | None
    snapshot_rows: int | None
    # Snapshots that are read or being sent, each with its rows in memory.
    snapshots: asyncio.Semaphore
    counters: Counters
