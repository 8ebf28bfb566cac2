"""The direct outbox of one socket: shared frames, written to the connection without ASGI.

Frames of one iteration of the event loop leave in one write at its end. Bytes that the kernel does
not take go to the transport. Until the transport has sent them, further frames wait here, as
references to frames that all sockets share. When more than the bound waits, the socket is ended;
its client can resume.

A write to the file descriptor saves what `transport.write` costs beside the system call, about a
quarter of a write (`benchmarks.fanout`). It happens only while the transport's buffer is empty, so
the order of bytes is kept. The protocol that opens the outbox calls `pause_writing` and
`resume_writing` for its transport, and `drop` before the connection is closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Outgoing
from realtime.delivery.write_group import WriteGroup
from realtime.delivery.write_scheduler import WriteScheduler, scheduler_of

_HALF = 0.5


class DirectOutbox:
    """Used on the event loop of the transport.

    `first`, `more`, `slow_path`, `fd`, `compressed`, `groups` and `transport` are for the write
    scheduler and the server.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_closing",
        "_ended",
        "_ends_when_sent",
        "_gone",
        "_outboxes",
        "_paused",
        "_room",
        "_scheduler",
        "_waiting",
        "compressed",
        "fd",
        "first",
        "groups",
        "more",
        "overflowed",
        "slow_path",
        "transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        bound: int | None,
        ended: Callable[[Exception | None], None],
        compressed: bool = False,
    ) -> None:
        """`ended` is called when the outbox was closed and everything is sent, or when it
        overflowed.

        `compressed`: the client takes messages that were compressed without context.
        """
        self._scheduler = scheduler = scheduler_of(asyncio.get_running_loop())
        # The scheduler's own list, which it never replaces. Saves a look-up for each frame.
        self._outboxes = scheduler.outboxes
        # The write groups that this outbox is in, and its index in each.
        self.groups: dict[WriteGroup, int] = {}
        self.compressed = compressed
        self._bound = bound
        self._ended = ended
        self._room: asyncio.Event | None = None
        self._waiting = 0
        self._paused = self._closing = self._gone = self._ends_when_sent = False
        self.overflowed = False
        # Paused, closing or gone: frames take the slow path.
        self.slow_path = False
        self.first: SharedFrame | None = None
        self.more: list[SharedFrame] | None = None
        self.transport = transport
        self.fd = _descriptor(transport)

    @property
    def size(self) -> int:
        """Bytes that wait for a slow client, here and in the transport; 0 for other clients."""
        return self._waiting + self.transport.get_write_buffer_size() if self._paused else 0

    @property
    def direct(self) -> WriteScheduler | None:
        """The scheduler that writes to several sockets together; None while that is impossible."""
        return None if self.slow_path or self.fd < 0 else self._scheduler

    def put(self, frame: Outgoing) -> None:
        """Send a frame at the end of this iteration of the loop. After `close` or an overflow it is
        dropped."""
        if self.slow_path or type(frame) is not SharedFrame:
            self._put_slowly(frame)
            return
        if self.first is None:
            scheduler = self._scheduler
            if scheduler.batches:
                # Frames of its batches were sent before this one.
                scheduler.withdraw(self)
        if self.first is None:
            outboxes = self._outboxes
            if not outboxes:
                self._scheduler.request_flush()
            outboxes.append(self)
            self.first = frame
        elif self.more is None:
            self.more = [frame]
        else:
            self.more.append(frame)

    def _put_slowly(self, frame: Outgoing) -> None:
        if not isinstance(frame, SharedFrame):
            frame = SharedFrame(frame)
            # Encoded here, so that a frame that cannot be encoded fails in its sender.
            frame.frame()
        if not self.slow_path:
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
        """Write the frames that wait, as far as the client takes them."""
        while self.first is not None and not self._paused and not self._gone:
            self._write(self._take(self._scheduler.bounds.write_bytes))

    def finish(self) -> None:
        """Take no more frames; those that wait go to the transport, which keeps their order."""
        self._leave_groups()
        self._closing = self.slow_path = True
        if self.first is not None and not self._gone:
            self.transport.write(self._take(None))

    def close(self) -> None:
        """Take no more frames; `ended` is called when those that wait are sent."""
        if self._closing or self._gone:
            return
        self._leave_groups()
        self.flush()
        self._closing = self.slow_path = True
        if self._paused:
            self._ends_when_sent = True
        else:
            self._ended(None)

    def drop(self) -> None:
        """Forget the frames that wait and take no more: the connection is ended, or gone."""
        self._leave_groups()
        self._gone = self.slow_path = True
        self.first = self.more = None
        self._waiting = 0
        self._wake()

    async def stop(self) -> None:
        """Forget the frames that wait, without a call of `ended`."""
        self._ends_when_sent = False
        if not self._closing:
            self.drop()

    def takes_more(self) -> bool:
        """Whether less than half the bound waits. True too when nothing is sent any more."""
        if self._bound is None or self._gone or self._closing:
            return True
        half = self._bound * _HALF
        if not self._paused and self.more is not None and sum(map(len, self.more)) > half:
            # Put in this iteration of the loop. What the client does not take at once counts.
            self.flush()
        return not self._paused or self._waiting + self.transport.get_write_buffer_size() <= half

    async def writable(self) -> None:
        """Wait until it takes more. Replays use it."""
        self.flush()
        while not self.takes_more():
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()

    def pause_writing(self) -> None:
        """The transport's buffer is not empty: the client, or the network, is slow."""
        self._leave_groups()
        self._paused = self.slow_path = True
        self._waiting = 0
        if self.first is not None:
            self._waiting = sum(map(len, self._forms([self.first, *(self.more or ())])))

    def resume_writing(self) -> None:
        """The transport's buffer is empty again."""
        self._paused = False
        self._waiting = 0
        if not self._gone:
            self.slow_path = self._closing
            while self.first is not None and not self._paused:
                self._write(self._take(self._scheduler.bounds.write_bytes))
        if self._paused:
            return
        self._wake()
        if self._ends_when_sent and not self._gone:
            self._ends_when_sent = False
            self._ended(None)

    def _leave_groups(self) -> None:
        for group in tuple(self.groups):
            group.release(self)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def _take(self, most: int | None) -> bytes:
        """Whole frames from the front, about `most` bytes of them; None: all."""
        assert self.first is not None
        if self.more is None:
            data, self.first = self.first.form(self.compressed), None
            return data
        waiting = [self.first, *self.more]
        forms = self._forms(waiting)
        count, size = len(waiting), 0
        if most is not None:
            for index, form in enumerate(forms):
                size += len(form)
                if size >= most:
                    count = index + 1
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
        # Leads to a call of `pause_writing` when the kernel does not take all of it.
        self.transport.write(memoryview(data)[sent:])


def _descriptor(transport: asyncio.Transport) -> int:
    """The file descriptor of a connection that carries bytes unencrypted; else -1."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())
