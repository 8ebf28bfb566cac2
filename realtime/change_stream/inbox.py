"""The changes that wait for their consumer, with a bound.

At the bound the channel is paced: the subscription manager delivers nothing more until most of what
waits was taken, and then goes on from the log. So nothing is lost and memory stays bounded, however
slow the consumer is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from realtime.event_log.position import Position
from realtime.subscriptions.seen_change import SeenChange

MOST_CHANGES = 1_000
MOST_BYTES = 1_048_576
_HALF = 2


class Inbox:
    """One per subscriber, on its event loop. `full` is called when the bound is reached."""

    #: Changes are put one by one.
    direct = None

    def __init__(self, *, most_changes: int = MOST_CHANGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_changes = most_changes
        self._most_bytes = most_bytes
        self._waiting: deque[SeenChange | Position] = deque()
        self._bytes = 0
        self._changes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        #: Why nothing comes any more; also set without an error when the consumer has left.
        self.error: Exception | None = None
        self.ended = False
        #: Whether anything was put.
        self.began = False
        self.full: Callable[[], None] = _ignored

    @property
    def size(self) -> int:
        """About how many bytes wait."""
        return self._bytes

    @property
    def changes(self) -> int:
        """How many changes wait."""
        return self._changes

    # --- for those who deliver --------------------------------------------------------------------

    def put(self, change: SeenChange) -> None:
        """Let a change wait for the consumer."""
        if self.ended:
            return
        self.began = True
        self._waiting.append(change)
        self._bytes += len(change)
        self._changes += 1
        self._news.set()
        if self._changes >= self._most_changes or self._bytes >= self._most_bytes:
            self._room.clear()
            self.full()
        elif not self.takes_more():
            self._room.clear()

    def reached(self, at: Position) -> None:
        """The consumer has everything up to this position when it has taken what waits."""
        if not self.ended:
            self.began = True
            self._waiting.append(at)
            self._news.set()

    def end(self, error: Exception | None = None, *, at_once: bool = False) -> None:
        """Nothing is put any more. The consumer gets `error` behind what waits, or, with `at_once`,
        in place of it."""
        if self.ended and not at_once:
            return
        if not self.ended or self.error is None:
            self.error = error
        self.ended = True
        if at_once:
            self._waiting.clear()
            self._bytes = self._changes = 0
        self._news.set()
        self._room.set()

    def takes_more(self) -> bool:
        """Whether the consumer has taken most of what was put."""
        return self._changes * _HALF < self._most_changes and self._bytes * _HALF < self._most_bytes

    async def writable(self) -> None:
        """Wait until `takes_more`."""
        await self._room.wait()

    # --- for the consumer -------------------------------------------------------------------------

    async def news(self) -> None:
        """Wait until something can be taken, or nothing will come."""
        await self._news.wait()

    def take(self) -> SeenChange | Position | None:
        """What has waited longest: a change, or a position that was reached; None if nothing
        waits."""
        if not self._waiting:
            if not self.ended:
                self._news.clear()
            return None
        found = self._waiting.popleft()
        if not isinstance(found, Position):
            self._bytes -= len(found)
            self._changes -= 1
            if not self._room.is_set() and self.takes_more():
                self._room.set()
        return found

    def continues(self, change: SeenChange) -> bool:
        """Whether the next one that waits is of the same change of the log."""
        if not self._waiting:
            return False
        following = self._waiting[0]
        return not isinstance(following, Position) and following.event.seq == change.event.seq


def _ignored() -> None:
    """In place of `full`, until that is set."""
