"""Long work on the event loop, interrupted so that other tasks run in between.

Decides when to interrupt; the caller decides where that is safe.
"""

from __future__ import annotations

import asyncio
import time

SLICE_SECONDS = 0.005


class TimeSlice:
    """The time slice of one piece of work. Other tasks wait about `seconds` for the loop."""

    __slots__ = ("_began", "_seconds")

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Start a slice: other tasks have just had the loop."""
        self._began = time.perf_counter()

    async def pause(self) -> None:
        """Let other tasks run if the slice is over."""
        if time.perf_counter() - self._began > self._seconds:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
