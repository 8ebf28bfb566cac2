"""What the replays of one process share: where they read, and what bounds them.

Owns only how the event loop is shared among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.subscriptions.live_sets import LiveSetStore
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.replay.shared_changes import SharedChanges
from realtime.subscriptions.replay.snapshot import SnapshotReader
from realtime.subscriptions.replay.start import ReplayStart
from realtime.util.counters import Counters
from realtime.util.loop_share import LoopShare


@dataclass(frozen=True, slots=True)
class ReplayContext:
    """One per subscription manager, given to each replay that it starts."""

    #: The position of the process, which a replay is to reach, and the newest events.
    log: EventLog
    #: Older events, from the table.
    reader: LogReader
    #: Where a client's cursor stands in the log.
    start: ReplayStart
    #: Rows as they stood at a position.
    snapshots: SnapshotReader
    #: The sets behind selects, at the position of the process.
    sets: LiveSetStore
    #: What replays deliver of each change.
    changes: SharedChanges
    bounds: ReplayBounds
    counters: Counters
    #: Matching and framing on the event loop.
    loop: LoopShare = field(default_factory=LoopShare)
