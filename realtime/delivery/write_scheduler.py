"""The write scheduler: what one event loop writes to its sockets at the end of an iteration.

There are two kinds of work. An outbox that frames were put to is written by itself. A frame for
many is kept as a batch: the frames, and the file descriptors of the recipients in a packed array.
With ten thousand sockets the objects of a socket are in no CPU cache, and to touch them costs more
than anything but the system call; a batch touches four bytes a socket
(`benchmarks.fanout --sockets 10000`).

An outbox gets its frames in order and in one write. One that is given another frame while a batch
for it waits is taken out of that batch, with the batch's frames put to it first. The same happens
to one that may not be written to directly any more, so no batch ever holds a descriptor that its
outbox has given up. A batch may be written over several iterations; the next batch waits for it.
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
from realtime.delivery.write_group import SOCKETS_A_LOOK, WriteBatch, WriteGroup

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox

logger = logging.getLogger("realtime.turn")

# Seconds of writing in one iteration of the loop, which has other work too.
_SLICE_SECONDS = 0.01
# Outboxes with frames of their own, and gaps in a batch, up to which a batch is worth its cost.
_FEW = 64


class WriteScheduler:
    """One per event loop, used on that loop."""

    __slots__ = ("__weakref__", "_due", "batches", "lines")

    def __init__(self) -> None:
        self._due = False
        #: Outboxes that have frames of their own to write.
        self.lines: list[DirectOutbox] = []
        #: The first is written first. For `Line.put`, which would call us for nothing without.
        self.batches: list[WriteBatch] = []

    def soon(self) -> None:
        """Write in the next iteration of the loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def wire(self, single: dict[Any, None]) -> WriteGroup:
        """An empty write group; members that it has to release are put into `single`."""
        return WriteGroup(self, single)

    def share(
        self, wire: WriteGroup, frame: SharedFrame, without: DirectOutbox | None = None
    ) -> None:
        """Send a frame to every socket of a group but one, at the end of this iteration."""
        last = self.batches[-1] if self.batches else None
        if last is not None:
            if last.takes(wire, frame, without):
                last.add(frame)
                for line in last.pulled:
                    line.put(frame)
                return
            if not (last.begun or last.full(frame)):
                # A socket that gets both batches gets them in one write.
                self._settle()
        if len(self.lines) > _FEW:
            for strand in wire.strands:
                for line in strand.lines:
                    if line is not without:
                        line.put(frame)
            return
        batch = WriteBatch(wire, without)
        batch.add(frame)
        self.batches.append(batch)
        self.soon()
        for line in tuple(self.lines):
            if line.first is not None:
                self.pull(line)

    def fix(self, wire: WriteGroup) -> None:
        """The group is about to change: its batches take no more frames."""
        for batch in self.batches:
            if batch.wire is wire:
                batch.fixed = True

    def pull(self, line: DirectOutbox) -> None:
        """Put the frames that batches hold for an outbox to that outbox itself."""
        gaps = 0
        frames: list[SharedFrame] = []
        for batch in self.batches:
            if batch.wire in line.wires and batch.cut(line):
                batch.pulled.append(line)
                frames += batch.frames
            gaps += len(batch.stretches)
        for frame in frames:
            line.put(frame)
        if gaps > _FEW:
            self._settle()

    def _settle(self) -> None:
        """Dissolve all batches: their frames are put to each outbox."""
        batches = self.batches.copy()
        self.batches.clear()
        for batch in batches:
            batch.settle()

    # --- writing --------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._due = False
        until = time.perf_counter() + _SLICE_SECONDS
        try:
            if self.lines:
                self._write_lines(until)
            if self.batches:
                self._write_batches(until)
        finally:
            # An error with one socket must not keep the others waiting.
            if self.lines or self.batches:
                self.soon()

    def _write_batches(self, until: float) -> None:
        # The innermost loop of a fan-out: it calls nothing but the kernel.
        write = os.write
        while self.batches:
            batch = self.batches[0]
            if not batch.stretches:
                del self.batches[0]
                continue
            strand, start, end = batch.next()
            data = batch.data(strand.compressed)
            size = len(data)
            short: list[tuple[int, int]] = []
            for fd in strand.fds[start:end]:
                try:
                    sent = write(fd, data)
                except OSError:
                    # Full or broken: the transport will see which.
                    sent = 0
                if sent != size:
                    short.append((fd, sent))
            if short:
                # All outboxes first: what a transport does may change their indices.
                lines = [strand.lines[strand.fds.index(fd, start, end)] for fd, _ in short]
                for line, (_, sent) in zip(lines, short, strict=True):
                    _leave(line, data[sent:])
            if time.perf_counter() > until:
                return

    def _write_lines(self, until: float) -> None:
        lines = self.lines.copy()
        self.lines.clear()
        waiting = iter(lines)
        write = os.write
        last, compressed, frame, size = None, False, b"", 0
        try:
            for start in range(0, len(lines), SOCKETS_A_LOOK):
                if start and time.perf_counter() > until:
                    return
                for line in islice(waiting, SOCKETS_A_LOOK):
                    first = line.first
                    if first is None or line.odd:
                        continue
                    if line.more is not None:
                        line.flush()
                        continue
                    line.first = None
                    if first is not last or line.compressed is not compressed:
                        # Neighbours mostly have the same frame.
                        last, compressed = first, line.compressed
                        frame = first.form(compressed)
                        size = len(frame)
                    try:
                        sent = write(line.fd, frame)
                    except OSError:
                        # Full, broken, or without a descriptor (-1): the transport will see which.
                        sent = 0
                    if sent != size:
                        _leave(line, frame[sent:])
        finally:
            self.lines[:0] = waiting


def _leave(line: DirectOutbox, rest: bytes) -> None:
    """Give the transport the bytes that the kernel did not take."""
    try:
        line.transport.write(rest)
    except Exception:
        # After half a frame, no further frame could be read.
        logger.exception("a socket cannot be written to", extra={"action": "write_failed"})
        line.drop()
        line.transport.abort()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WriteScheduler] = WeakKeyDictionary()


def scheduler_of(loop: asyncio.AbstractEventLoop) -> WriteScheduler:
    """The write scheduler of this event loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = WriteScheduler()
    return turn
