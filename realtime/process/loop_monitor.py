"""How punctual the event loop is, and how full the fullest outbox: looked at a few times a second.

One timer. Owns the two figures that nobody counts because nobody does them; keeps the largest of
the last minute or so, so that a look once in fifteen seconds misses nothing. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from realtime.util.counters import Counters

_EVERY_SECONDS = 0.25
# Outboxes are looked at less often, since there may be thousands.
_OUTBOX_EVERY = 4
_WINDOW_SECONDS = 30.0


class Peak:
    """The largest of what was seen in this window and the one before."""

    __slots__ = ("_before", "_ends", "_now", "_window")

    def __init__(self, window: float = _WINDOW_SECONDS) -> None:
        self._window = window
        self._before = self._now = 0.0
        self._ends = float("-inf")

    def see(self, value: float, now: float) -> None:
        self._turn(now)
        self._now = max(self._now, value)

    def at(self, now: float) -> float:
        self._turn(now)
        return max(self._before, self._now)

    def _turn(self, now: float) -> None:
        if now < self._ends:
            return
        # After a long silence neither window says anything any more.
        self._before = self._now if now < self._ends + self._window else 0.0
        self._now = 0.0
        self._ends = now + self._window


class LoopMonitor:
    """One per event loop. `fullest` gives the bytes in the fullest outbox."""

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
        """The most seconds by which the loop was late lately."""
        return self._delay.at(self._loop.time())

    @property
    def highest_water(self) -> int:
        """The most bytes that waited for one client lately."""
        self._outbox.see(self._fullest(), self._loop.time())
        return int(self._outbox.at(self._loop.time()))

    def start(self) -> None:
        """Begin to look. Nothing happens when it has begun."""
        if self._timer is None:
            self._next()

    def stop(self) -> None:
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
        self._delay.see(late, now)
        self._beats += 1
        if self._beats % _OUTBOX_EVERY == 0:
            self._outbox.see(self._fullest(), now)
        self._next()
