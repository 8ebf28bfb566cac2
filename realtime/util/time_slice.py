"""Long work on the event loop in small pieces, so that others have their turn in between.

Says when to stop for a moment; what is safe to interrupt is for whoever works.
"""

from __future__ import annotations

import asyncio
import time

SLICE_SECONDS = 0.005


class TimeSlice:
    """One piece of work. Whoever waits on the loop waits about as long as a slice."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def begin(self) -> None:
        """A slice begins here: somebody else had the loop just now."""
        self._began = time.perf_counter()

    async def pause(self) -> None:
        """Let others have their turn if the slice is over."""
        if time.perf_counter() - self._began > SLICE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
