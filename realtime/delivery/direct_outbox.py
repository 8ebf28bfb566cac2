"""The fast way to one socket: prepared frames, written straight to its connection.

Knows frames and transports, nothing of servers or protocols. Frames that are put within one turn
of the event loop leave in one write at its end. What the kernel does not take is left to the
transport, and until the transport has got rid of it, further frames wait here, as references to
what all sockets share. More than the bound of those, and the socket is given up: its client can
resume.

Writing to the file descriptor saves what `transport.write` costs above the system call, about a
quarter of a write (`benchmarks.fanout`). It happens only while the transport holds nothing, so the
order of bytes is kept; who opens a line tells it by `hold` and `resume`, and before the connection
is closed by `drop`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Outgoing
from realtime.delivery.write_group import WRITE_BYTES, WriteGroup
from realtime.delivery.write_scheduler import WriteScheduler, scheduler_of

_HALF = 0.5


class DirectOutbox:
    """Everything is called on the event loop of the transport.

    `first`, `more`, `odd`, `fd`, `compressed`, `wires` and `transport` are for the turn and the
    server.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_closing",
        "_ended",
        "_gone",
        "_held",
        "_lines",
        "_room",
        "_telling",
        "_turn",
        "_waiting",
        "compressed",
        "fd",
        "first",
        "more",
        "odd",
        "overflowed",
        "transport",
        "wires",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        bound: int | None,
        ended: Callable[[Exception | None], None],
        compressed: bool = False,
    ) -> None:
        """`ended` is called when the line was closed and all was sent, or when it was given up.

        `compressed`: the client takes what was compressed for itself alone (`prepared.py`).
        """
        self._turn = turn = scheduler_of(asyncio.get_running_loop())
        # Always the same list: one look-up less for each frame.
        self._lines = turn.lines
        # Where it gets the frames of many, and its place there.
        self.wires: dict[WriteGroup, int] = {}
        self.compressed = compressed
        self._bound = bound
        self._ended = ended
        self._room: asyncio.Event | None = None
        self._waiting = 0
        self._held = self._closing = self._gone = self._telling = False
        self.overflowed = False
        # Held, closing or gone: frames take the longer way.
        self.odd = False
        self.first: SharedFrame | None = None
        self.more: list[SharedFrame] | None = None
        self.transport = transport
        self.fd = _descriptor(transport)

    @property
    def size(self) -> int:
        """Bytes that wait for a slow client, here and in the transport; 0 for any other."""
        return self._waiting + self.transport.get_write_buffer_size() if self._held else 0

    @property
    def direct(self) -> WriteScheduler | None:
        """What writes to it together with others; None where that is not possible now."""
        return None if self.odd or self.fd < 0 else self._turn

    def put(self, frame: Outgoing) -> None:
        """Send a frame at the end of this turn. After `close` or an overflow it is dropped."""
        if self.odd or type(frame) is not SharedFrame:
            self._put_oddly(frame)
            return
        if self.first is None:
            turn = self._turn
            if turn.batches:
                # What many get was there before this.
                turn.pull(self)
        if self.first is None:
            lines = self._lines
            if not lines:
                self._turn.soon()
            lines.append(self)
            self.first = frame
        elif self.more is None:
            self.more = [frame]
        else:
            self.more.append(frame)

    def _put_oddly(self, frame: Outgoing) -> None:
        if not isinstance(frame, SharedFrame):
            frame = SharedFrame(frame)
            # What cannot be sent is the business of who puts it, and of nobody else.
            frame.frame()
        if not self.odd:
            self.put(frame)
            return
        if self._closing or self._gone:
            return
        if self.first is None:
            self.first = frame
        elif self.more is None:
            self.more = [frame]
        else:
            self.more.append(frame)
        self._waiting += len(frame.form(self.compressed))
        if self._bound is not None and self._waiting > self._bound:
            self.overflowed = True
            self.drop()
            self._ended(None)

    def flush(self) -> None:
        """Write what waits, as far as the client takes it."""
        while self.first is not None and not self._held and not self._gone:
            self._write(self._take(WRITE_BYTES))

    def finish(self) -> None:
        """Take no more, and leave all that waits to the transport, for its order's sake."""
        self._leave_wires()
        self._closing = self.odd = True
        if self.first is not None and not self._gone:
            self.transport.write(self._take(None))

    def close(self) -> None:
        """Take no more; `ended` is called when what waits is sent."""
        if self._closing or self._gone:
            return
        self._leave_wires()
        self.flush()
        self._closing = self.odd = True
        if self._held:
            self._telling = True
        else:
            self._ended(None)

    def drop(self) -> None:
        """Forget what waits and take no more: the connection is given up, or gone."""
        self._leave_wires()
        self._gone = self.odd = True
        self.first = self.more = None
        self._waiting = 0
        self._wake()

    async def stop(self) -> None:
        """Forget what waits and tell nobody; as for an outbox."""
        if not self._closing:
            self.drop()
        # Whom it told holds the line: nothing is to go in circles (`server.py`).
        self._ended = _nobody

    async def writable(self) -> None:
        """Wait until less than half the bound waits. For those who can wait (replays)."""
        self.flush()
        while self._bound is not None and self._held and not (self._gone or self._closing):
            if self._waiting + self.transport.get_write_buffer_size() <= self._bound * _HALF:
                return
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()

    def hold(self) -> None:
        """The transport holds bytes: the client, or the way to it, is slow."""
        self._leave_wires()
        self._held = self.odd = True
        self._waiting = 0
        if self.first is not None:
            self._waiting = sum(map(len, self._forms([self.first, *(self.more or ())])))

    def resume(self) -> None:
        """The transport holds nothing any more."""
        self._held = False
        self._waiting = 0
        if not self._gone:
            self.odd = self._closing
            while self.first is not None and not self._held:
                self._write(self._take(WRITE_BYTES))
        if self._held:
            return
        self._wake()
        if self._telling and not self._gone:
            self._telling = False
            self._ended(None)

    def _leave_wires(self) -> None:
        for wire in tuple(self.wires):
            wire.release(self)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def _take(self, most: int | None) -> bytes:
        """Whole frames from the front, about `most` bytes of them."""
        assert self.first is not None
        if self.more is None:
            data, self.first = self.first.form(self.compressed), None
            return data
        waiting = [self.first, *self.more]
        forms = self._forms(waiting)
        count, size = len(waiting), 0
        if most is not None:
            for place, form in enumerate(forms):
                size += len(form)
                if size >= most:
                    count = place + 1
                    break
        self.first = waiting[count] if count < len(waiting) else None
        self.more = waiting[count + 1 :] or None
        return b"".join(forms[:count])

    def _forms(self, frames: Iterable[SharedFrame]) -> list[bytes]:
        return [frame.form(self.compressed) for frame in frames]

    def _write(self, data: bytes) -> None:
        sent = 0
        if self.fd >= 0:
            try:
                sent = os.write(self.fd, data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
        # Calls `hold` when it cannot get rid of it.
        self.transport.write(memoryview(data)[sent:])


def _nobody(failure: Exception | None) -> None:
    """Nobody is told."""


def _descriptor(transport: asyncio.Transport) -> int:
    """The connection's own, where bytes may be written to it as they are; else -1."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())
