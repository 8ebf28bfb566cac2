"""Two figures that are sampled by a timer: the lateness of the event loop, and the fullest outbox.

Keeps the largest values of about the last minute, so that a scrape every fifteen seconds misses
none. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from realtime.util.counters import Counters

_EVERY_SECONDS = 0.25
# Outboxes are sampled at every fourth beat, because there may be thousands.
_OUTBOX_EVERY = 4
_WINDOW_SECONDS = 30.0


class Peak:
    """The largest value of this window and the one before. Times are in seconds."""

    __slots__ = ("_before", "_ends", "_now", "_window")

    def __init__(self, window: float = _WINDOW_SECONDS) -> None:
        self._window = window
        self._before = self._now = 0.0
        self._ends = float("-inf")

    def add(self, value: float, now: float) -> None:
        self._roll(now)
        self._now = max(self._now, value)

    def at(self, now: float) -> float:
        self._roll(now)
        return max(self._before, self._now)

    def _roll(self, now: float) -> None:
        if now < self._ends:
            return
        # After a long pause the last window is too old to count.
        self._before = self._now if now < self._ends + self._window else 0.0
        self._now = 0.0
        self._ends = now + self._window


class LoopMonitor:
    """One per event loop. `fullest` returns the number of bytes in the fullest outbox."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, counters: Counters, fullest: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._fullest = fullest
        self._delay = Peak()
        self._outbox = Peak()
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def longest_delay(self) -> float:
        """The most seconds by which a timer was late, in the last minute."""
        return self._delay.at(self._loop.time())

    @property
    def highest_water(self) -> int:
        """The most bytes that waited for one client, in the last minute."""
        self._outbox.add(self._fullest(), self._loop.time())
        return int(self._outbox.at(self._loop.time()))

    def start(self) -> None:
        """Start the timer; does nothing if it runs."""
        if self._timer is None:
            self._next()

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        self._due = self._loop.time() + _EVERY_SECONDS
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        late = max(0.0, now - self._due)
        self._counters.loop_delays.add(late)
        self._delay.add(late, now)
        self._beats += 1
        if self._beats % _OUTBOX_EVERY == 0:
            self._outbox.add(self._fullest(), now)
        self._next()
