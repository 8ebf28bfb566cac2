"""What waits to be sent to one socket: in order, and never more than its bound of bytes.

Knows nothing of frames or protocols. Past the bound the socket is given up: `overflowed` is set and
everything that waits is dropped, because its client can resume and memory cannot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

_HALF = 0.5
_ASK_AGAIN_SECONDS = 0.01


class Outbox:
    """One writer task takes from it; anybody on the loop puts into it."""

    def __init__(
        self,
        send: Callable[[str | bytes], Awaitable[None]],
        bound: int | None,
        unsent: Callable[[], int] = lambda: 0,
    ) -> None:
        """`unsent` gives the bytes that wait beyond `send`, where a server takes them at once."""
        self._send = send
        self._unsent = unsent
        self._bound = bound
        self._frames: deque[str | bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._sending = False
        self.overflowed = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes that wait; a text counts as its number of characters."""
        return self._bytes

    def put(self, frame: str | bytes) -> None:
        """Queue a frame. After `close` or an overflow it is dropped."""
        if self._closing or self.overflowed.is_set():
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if self._bound is not None:
            # Only a client that holds up a send is slow. A burst that the writer has not even
            # begun to send is ours: it is handed over when the loop comes round.
            if self._sending and self._bytes > self._bound and self._frames:
                self._give_up()
            elif self._bytes > self._bound * _HALF:
                self._room.clear()
        self._wake.set()

    async def writable(self) -> None:
        """Wait until less than half the bound is taken. For those who can wait (replays)."""
        await self._room.wait()
        # Nobody tells when a transport's buffer has drained, so it is asked again.
        while self._bound is not None and self._unsent() > self._bound * _HALF:
            if self.overflowed.is_set() or self._closing:
                return
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def close(self) -> None:
        """Take no more; `run` ends when what waits is sent."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Send until closed. Raises what sending raises."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                self._sending = True
                await self._send(frame)
                self._sending = False
                self._bytes = max(0, self._bytes - len(frame))
                if self._bound is not None and self._unsent() > self._bound:
                    self._give_up()
                    return
                if self._bound is None or self._bytes <= self._bound * _HALF:
                    self._room.set()
            if self._closing:
                return
            self._wake.clear()
            await self._wake.wait()

    def _give_up(self) -> None:
        self.overflowed.set()
        self._frames.clear()
        self._bytes = 0
        self._room.set()
