"""What one process has done since it began: plain whole numbers that only rise.

Whoever does a thing counts it here, on the event loop; anybody may read. Keeps no history.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """One per process."""

    #: Batches and broadcasts heard on the bus.
    heard: int = 0
    #: Broadcasts handed to those who listen.
    casts: int = 0
    #: Broadcasts refused or dropped because too many of their topic waited.
    casts_refused: int = 0
    #: Events handed to the subscription manager.
    events: int = 0
    #: Times that entries were missing and were read from the log.
    heals: int = 0
    #: Entries those reads brought.
    healed_events: int = 0
    #: Times the watch compared this process with the head of the log.
    watch_reads: int = 0
    #: Messages that found the inbox full; their entries are read from the log.
    inbox_full: int = 0
    #: Calls of the channel layer that failed or were not answered in time.
    layer_failures: int = 0
    #: Times this process joined the group again.
    rejoins: int = 0
    #: Times everybody here was told to read their rows again.
    resyncs: int = 0
