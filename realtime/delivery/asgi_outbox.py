"""The outbox of one socket behind any ASGI server: frames in order, bounded in bytes.

When more than the bound waits, `overflowed` is set and everything that waits is dropped; the client
can resume. While the client takes what it is sent, nothing waits here and no task runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Outgoing
from realtime.delivery.server_adapter import UNKNOWN, ServerAdapter
from realtime.util.tasks import cancelled

_HALF = 0.5
_ASK_AGAIN_SECONDS = 0.01

Send = Callable[[str | bytes], Coroutine[Any, Any, None]]


class AsgiOutbox:
    """Used on one event loop. `ended` is called once: when the outbox was closed and everything is
    sent, when it overflowed, or with the error of a send."""

    __slots__ = (
        "_bound",
        "_bytes",
        "_closing",
        "_eager",
        "_ended",
        "_frames",
        "_over",
        "_room",
        "_send",
        "_sending",
        "_unsent",
        "_write",
        "_writer",
        "overflowed",
    )

    def __init__(
        self,
        send: Send,
        bound: int | None,
        ended: Callable[[Exception | None], None],
        adapter: ServerAdapter = UNKNOWN,
    ) -> None:
        """`bound` is in bytes, None for no bound. `adapter`: the abilities of the server. With an
        eager one `put` begins the send itself, which saves a task for every frame that need not
        wait (`benchmarks.fanout`).
        """
        self._send = send
        self._bound = bound
        self._ended = ended
        self._unsent = adapter.unsent
        self._eager = adapter.eager
        self._write = adapter.write
        self._frames: deque[str | bytes] | None = None
        self._bytes = 0
        self._room: asyncio.Event | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing = self._sending = self._over = False
        self.overflowed = False

    @property
    def direct(self) -> None:
        """None: frames cannot be written to several such sockets together."""
        return None

    @property
    def size(self) -> int:
        """Bytes that wait; a text counts by its characters."""
        return self._bytes

    def put(self, frame: Outgoing) -> None:
        """Send a frame, or queue it. After `close` or an overflow it is dropped."""
        if self._closing or self.overflowed or self._over:
            return
        if self._write is not None and self._writer is None:
            # Nothing waits here while there is no writer.
            made = frame if isinstance(frame, SharedFrame) else SharedFrame(frame)
            data = made.frame()
            try:
                written = self._write(data)
            except Exception as error:
                # The error of one socket must not reach the sender of a frame for many.
                self._end(error)
                return
            if written:
                self._look_beyond()
                return
        message = frame.message if isinstance(frame, SharedFrame) else frame
        if self._writer is None:
            if self._eager:
                self._begin(message)
                return
            self._writer = asyncio.create_task(self._run(None), name="rowcast-writer")
        if self._frames is None:
            self._frames = deque()
        self._frames.append(message)
        self._bytes += len(message)
        # A client is slow only while a send to it waits. A burst that the writer has not begun to
        # send is handed to the server in the next iteration of the loop.
        if self._bound is not None and self._sending and self._bytes > self._bound:
            self._give_up()

    def takes_more(self) -> bool:
        """Whether less than half the bound waits. True too when nothing is sent any more."""
        if self._bound is None or self._over:
            return True
        half = self._bound * _HALF
        return self._bytes <= half and (self._closing or self._unsent() <= half)

    async def writable(self) -> None:
        """Wait until it takes more. Replays use it."""
        while not self.takes_more():
            if self._bound is not None and self._bytes > self._bound * _HALF:
                if self._room is None:
                    self._room = asyncio.Event()
                await self._room.wait()
            else:
                # A transport does not report that its buffer has drained, so it is polled.
                await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def close(self) -> None:
        """Take no more frames. `ended` is called when those that wait are sent."""
        self._closing = True
        if self._writer is None:
            self._end(None)

    async def stop(self) -> None:
        """Send nothing more, without a call of `ended`."""
        self._over = True
        self._wake()
        writer = self._writer
        if writer is not None:
            await cancelled([writer])

    def _begin(self, message: str | bytes) -> None:
        sending = self._send(message)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            self._look_beyond()
        except Exception as error:
            # The error of one socket must not reach the sender of a frame for many.
            self._end(error)
        else:
            self._bytes = len(message)
            self._sending = True
            begun = _Rest(sending, waits_for), len(message)
            self._writer = asyncio.create_task(self._run(begun), name="rowcast-writer")

    async def _run(self, begun: tuple[_Rest, int] | None) -> None:
        try:
            if begun is not None:
                rest, size = begun
                await rest
                self._sent(size)
            while self._frames and not self.overflowed:
                message = self._frames.popleft()
                self._sending = True
                await self._send(message)
                self._sent(len(message))
        except Exception as error:
            self._end(error)
        finally:
            self._frames = self._writer = None
            self._sending = False
        if self._closing:
            self._end(None)

    def _sent(self, size: int) -> None:
        self._sending = False
        self._bytes = max(0, self._bytes - size)
        if self._bound is None or self._bytes <= self._bound * _HALF:
            self._wake()
        self._look_beyond()

    def _look_beyond(self) -> None:
        if self._bound is not None and self._unsent() > self._bound:
            self._give_up()

    def _give_up(self) -> None:
        self.overflowed = True
        self._frames = None
        self._bytes = 0
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._over:
            self._over = True
            self._wake()
            self._ended(error)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()


class _Rest:
    """The rest of a coroutine whose first step ran outside a task."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    value = yield waits_for
                except Exception as error:
                    waits_for = self._coroutine.throw(error)
                except asyncio.CancelledError as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(value)
        except StopIteration:
            return
        finally:
            self._coroutine.close()
