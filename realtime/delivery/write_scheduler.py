"""The write scheduler: what one event loop writes to its sockets at the end of an iteration.

There are two kinds of work. An outbox that was handed frames of its own is written by itself. A
frame for many sockets is kept in a batch: the frames, and the file descriptors of the recipients in
a packed array. With ten thousand sockets the objects of one socket are in no CPU cache, and reading
them costs more than everything else but the system call. A batch reads four bytes for each socket
(`benchmarks.fanout --sockets 10000`).

An outbox gets its frames in order and in one write. When an outbox is handed another frame while a
batch for it waits, it leaves that batch and gets the batch's frames first. The same happens to an
outbox that may not be written to directly any more, so no batch holds a descriptor that its outbox
has given up. A batch may be written over several iterations; the next batch waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from realtime.delivery.frame import SharedFrame
from realtime.delivery.write_group import WriteBatch, WriteBounds, WriteGroup

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox

logger = logging.getLogger("realtime.scheduler")


class WriteScheduler:
    """One per event loop, used on that loop."""

    __slots__ = ("__weakref__", "_due", "batches", "bounds", "outboxes")

    def __init__(self) -> None:
        self._due = False
        self.bounds = WriteBounds()
        #: Outboxes that have frames of their own to write.
        self.outboxes: list[DirectOutbox] = []
        #: In the order of writing. `DirectOutbox.put` reads it, which saves a call for each frame
        #: while there is no batch.
        self.batches: list[WriteBatch] = []

    def request_flush(self) -> None:
        """Write in the next iteration of the loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def group(self, single: dict[Any, None]) -> WriteGroup:
        """An empty write group. Recipients that it releases are put into `single`."""
        return WriteGroup(self, single)

    def send(
        self, group: WriteGroup, frame: SharedFrame, without: DirectOutbox | None = None
    ) -> None:
        """Send a frame to every socket of a group but `without`, at the end of this iteration."""
        last = self.batches[-1] if self.batches else None
        if last is not None:
            if last.takes(group, frame, without):
                last.add(frame)
                for outbox in last.withdrawn:
                    outbox.put(frame)
                return
            if not (last.begun or last.full(frame)):
                # A socket that gets both batches gets them in one write.
                self._dissolve()
        if len(self.outboxes) > self.bounds.few:
            for encoding in group.encodings:
                for outbox in encoding.outboxes:
                    if outbox is not without:
                        outbox.put(frame)
            return
        batch = WriteBatch(group, without)
        batch.add(frame)
        self.batches.append(batch)
        self.request_flush()
        for outbox in tuple(self.outboxes):
            if outbox.first is not None:
                self.withdraw(outbox)

    def freeze(self, group: WriteGroup) -> None:
        """The group is about to change: its batches take no more frames."""
        for batch in self.batches:
            if batch.group is group:
                batch.frozen = True

    def withdraw(self, outbox: DirectOutbox) -> None:
        """Take an outbox out of all batches and hand it their frames."""
        gaps = 0
        frames: list[SharedFrame] = []
        for batch in self.batches:
            if batch.group in outbox.groups and batch.cut(outbox):
                batch.withdrawn.append(outbox)
                frames += batch.frames
            gaps += len(batch.ranges)
        for frame in frames:
            outbox.put(frame)
        if gaps > self.bounds.few:
            self._dissolve()

    def _dissolve(self) -> None:
        """Hand the frames of all batches to each outbox."""
        batches = self.batches.copy()
        self.batches.clear()
        for batch in batches:
            batch.dissolve()

    # --- writing --------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._due = False
        until = time.perf_counter() + self.bounds.seconds
        try:
            if self.outboxes:
                self._write_outboxes(until)
            if self.batches:
                self._write_batches(until)
        finally:
            # An error with one socket must not keep the others waiting.
            if self.outboxes or self.batches:
                self.request_flush()

    def _write_batches(self, until: float) -> None:
        # The innermost loop of a fan-out: it calls nothing but the kernel.
        write = os.write
        while self.batches:
            batch = self.batches[0]
            if not batch.ranges:
                del self.batches[0]
                continue
            encoding, start, end = batch.next()
            data = batch.data(encoding.compressed)
            size = len(data)
            short: list[tuple[int, int]] = []
            for fd in encoding.fds[start:end]:
                try:
                    sent = write(fd, data)
                except OSError:
                    # Full or broken: the transport will see which.
                    sent = 0
                if sent != size:
                    short.append((fd, sent))
            if short:
                # All outboxes first: what a transport does may change their indices.
                outboxes = [
                    encoding.outboxes[encoding.fds.index(fd, start, end)] for fd, _ in short
                ]
                for outbox, (_, sent) in zip(outboxes, short, strict=True):
                    _give_to_transport(outbox, data[sent:])
            if time.perf_counter() > until:
                return

    def _write_outboxes(self, until: float) -> None:
        outboxes = self.outboxes.copy()
        self.outboxes.clear()
        waiting = iter(outboxes)
        write = os.write
        sockets = self.bounds.sockets
        last, compressed, frame, size = None, False, b"", 0
        try:
            for start in range(0, len(outboxes), sockets):
                if start and time.perf_counter() > until:
                    return
                for outbox in islice(waiting, sockets):
                    first = outbox.first
                    if first is None or outbox.slow_path:
                        continue
                    if outbox.more is not None:
                        outbox.flush()
                        continue
                    outbox.first = None
                    if first is not last or outbox.compressed is not compressed:
                        # Neighbours mostly have the same frame.
                        last, compressed = first, outbox.compressed
                        frame = first.form(compressed)
                        size = len(frame)
                    try:
                        sent = write(outbox.fd, frame)
                    except OSError:
                        # Full, broken, or without a descriptor (-1): the transport will see which.
                        sent = 0
                    if sent != size:
                        _give_to_transport(outbox, frame[sent:])
        finally:
            self.outboxes[:0] = waiting


def _give_to_transport(outbox: DirectOutbox, rest: bytes) -> None:
    """Give the transport the bytes that the kernel did not take."""
    try:
        outbox.transport.write(rest)
    except Exception:
        # After half a frame, no further frame could be read.
        logger.exception("a socket cannot be written to", extra={"action": "write_failed"})
        outbox.drop()
        outbox.transport.abort()


_schedulers: WeakKeyDictionary[asyncio.AbstractEventLoop, WriteScheduler] = WeakKeyDictionary()


def scheduler_of(loop: asyncio.AbstractEventLoop) -> WriteScheduler:
    """The write scheduler of this event loop."""
    scheduler = _schedulers.get(loop)
    if scheduler is None:
        scheduler = _schedulers[loop] = WriteScheduler()
    return scheduler
