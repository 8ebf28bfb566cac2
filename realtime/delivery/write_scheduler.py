"""What one event loop writes to its sockets at the end of a turn.

Two kinds of work. A line that frames were put to is written by itself. A frame for many is kept as
a batch instead: one list of bytes, and the descriptors that it goes to, packed in an array. At ten
thousand sockets what a process knows of each lies in no cache any more, so a fan-out that looks at
a socket's objects pays more for looking than for anything else but the system call; a batch looks
at four bytes (`benchmarks.fanout --sockets 10000`).

A line has its frames in order, and in one write: one that gets anything else while a batch with
frames for it waits is taken out of the batch, together with those. So is one that may not be
written to directly any more. That leaves no moment in which a batch knows a descriptor that its
line has given up. While a batch is being written, over several turns, the next one waits behind it.
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

# One turn of the loop writes for so long; others want their turn too.
_SLICE_SECONDS = 0.01
# Lines with frames of their own, and holes in a batch, up to which a batch is worth having.
_FEW = 64


class WriteScheduler:
    """Everything is called on the loop it belongs to."""

    __slots__ = ("__weakref__", "_due", "batches", "lines")

    def __init__(self) -> None:
        self._due = False
        #: Lines that have something to write.
        self.lines: list[DirectOutbox] = []
        #: The first is written first. For `Line.put`, which would call us for nothing without.
        self.batches: list[WriteBatch] = []

    def soon(self) -> None:
        """There is something to write."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def wire(self, apart: dict[Any, None]) -> WriteGroup:
        """A wire without anybody; who leaves it because it has to is put to `apart`."""
        return WriteGroup(self, apart)

    def share(
        self, wire: WriteGroup, frame: SharedFrame, without: DirectOutbox | None = None
    ) -> None:
        """Send a frame to everybody on a wire but one, at the end of this turn."""
        last = self.batches[-1] if self.batches else None
        if last is not None:
            if last.takes(wire, frame, without):
                last.add(frame)
                for line in last.pulled:
                    line.put(frame)
                return
            if not (last.begun or last.full(frame)):
                # Who is to get both gets them in one write.
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
        """The wire is about to change."""
        for batch in self.batches:
            if batch.wire is wire:
                batch.fixed = True

    def pull(self, line: DirectOutbox) -> None:
        """Put what batches have for a line to that line itself, if there is such a thing."""
        holes = 0
        frames: list[SharedFrame] = []
        for batch in self.batches:
            if batch.wire in line.wires and batch.cut(line):
                batch.pulled.append(line)
                frames += batch.frames
            holes += len(batch.stretches)
        for frame in frames:
            line.put(frame)
        if holes > _FEW:
            self._settle()

    def _settle(self) -> None:
        """Have no batches: what is left of them is put to each line."""
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
            # Whatever happened to one, the others have theirs.
            if self.lines or self.batches:
                self.soon()

    def _write_batches(self, until: float) -> None:
        # The innermost loop of a fan-out: nothing is called in it but the kernel.
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
                    # Full or broken: the transport finds out which.
                    sent = 0
                if sent != size:
                    short.append((fd, sent))
            if short:
                # Lines first: what a transport does about it may move them to other places.
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
                        # Neighbours mostly get the same frame.
                        last, compressed = first, line.compressed
                        frame = first.form(compressed)
                        size = len(frame)
                    try:
                        sent = write(line.fd, frame)
                    except OSError:
                        # Full, broken, or none of its own (-1): the transport finds out which.
                        sent = 0
                    if sent != size:
                        _leave(line, frame[sent:])
        finally:
            self.lines[:0] = waiting


def _leave(line: DirectOutbox, rest: bytes) -> None:
    """Leave to the transport what the kernel did not take."""
    try:
        line.transport.write(rest)
    except Exception:
        # With half a frame sent, nothing that follows could be read.
        logger.exception("a socket cannot be written to", extra={"action": "write_failed"})
        line.drop()
        line.transport.abort()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WriteScheduler] = WeakKeyDictionary()


def scheduler_of(loop: asyncio.AbstractEventLoop) -> WriteScheduler:
    """The one of this loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = WriteScheduler()
    return turn
