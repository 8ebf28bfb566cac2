"""What one process has done since it started: whole numbers that only rise.

Written on the event loop, where the counted thing happens; read from anywhere. The delivery path
counts per audience and per batch, not per socket and per row, so counting costs almost nothing.
Keeps no history; the names of metrics are in `realtime.ops.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields


class Histogram:
    """Counts of values between bounds; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _batches() -> Histogram:
    return Histogram((1, 10, 100, 1_000, 10_000))


def _delays() -> Histogram:
    return Histogram((0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5))


@dataclass(slots=True)
class Counters:
    """One per process."""

    #: Batches and broadcasts received from the bus.
    heard: int = 0
    #: Broadcasts handed to listeners.
    broadcasts_received: int = 0
    #: Broadcasts refused or dropped because too many of their topic waited.
    casts_refused: int = 0
    #: Events handed to the subscription manager.
    events: int = 0
    #: Of these, events that at least one channel received.
    matched: int = 0
    #: Times that entries were missing and were read from the log.
    heals: int = 0
    #: Entries that those reads returned.
    healed_events: int = 0
    #: Comparisons of this process with the head of the log.
    watch_reads: int = 0
    #: Messages that found the inbox full; their entries are read from the log.
    inbox_full: int = 0
    #: Calls of the channel layer that failed or were not answered in time.
    layer_failures: int = 0
    #: Times this process joined the group again.
    rejoins: int = 0
    #: Times all channels were told to read their rows again.
    resyncs: int = 0
    #: Frames handed to sockets: changes, broadcasts, replies. One frame to ten sockets counts ten.
    frames_out: int = 0
    #: Of these, changes.
    delivered: int = 0
    #: The size of those frames; of a text in characters.
    bytes_out: int = 0
    #: Frames of changes that were made, live or in a replay: one for all sockets that get it.
    encoded: int = 0
    #: Messages of clients, and their size.
    frames_in: int = 0
    bytes_in: int = 0
    #: Replays: channels that were sent changes after a cursor, a snapshot, or a live set anew.
    replays: int = 0
    #: Snapshots sent to channels, and their rows.
    snapshots: int = 0
    snapshot_rows: int = 0
    #: Broadcasts that this process put on the bus.
    broadcasts_sent: int = 0
    #: Presence changes, of every process.
    presence: int = 0
    #: Joins that were answered with ok.
    joins: int = 0
    #: Sockets that were accepted.
    accepted: int = 0
    #: Refusals, by the limit and its scope: "joins_per_second/address".
    limits: Counter[str] = field(default_factory=Counter)
    #: Refused credentials, by where they were shown: "handshake", "channel" or "connection".
    auth_failures: Counter[str] = field(default_factory=Counter)
    #: Sockets this process ended, by close code.
    closes: Counter[str] = field(default_factory=Counter)
    #: Frames that could not be read, and other refusals, by the action of their log record.
    notes: Counter[str] = field(default_factory=Counter)
    #: Entries in each batch.
    batches: Histogram = field(default_factory=_batches)
    #: Seconds by which the event loop was late for a timer.
    loop_delays: Histogram = field(default_factory=_delays)

    def sent(self, sockets: int, size: int) -> None:
        """A frame of this size was handed to so many sockets."""
        self.frames_out += sockets
        self.bytes_out += sockets * size

    def flat(self) -> dict[str, int]:
        """All counters as numbers, those by key as sums, for the process row."""
        found: dict[str, int] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int):
                found[item.name] = value
            elif isinstance(value, Counter):
                found[item.name] = value.total()
        return found
