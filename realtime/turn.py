"""What one event loop writes to its sockets at the end of a turn.

Two kinds of work. A line that frames were put to is written by itself. A frame for many is kept as
a batch instead: one list of bytes, and the descriptors that it goes to, packed in an array. At ten
thousand sockets what a process knows of each lies in no cache any more, so a fan-out that looks at
a socket's objects pays more for looking than for anything else but the system call; a batch looks
at four bytes (`benchmarks.fanout --sockets 10000`).

A line has its frames in order, and in one write: one that gets anything else while a batch with
frames for it waits is taken out of the batch, together with those. So is one that may not be
written to directly any more. That leaves no moment in which a batch knows a descriptor that its
line has given up.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from realtime.prepared import Prepared

if TYPE_CHECKING:
    from realtime.line import Line

# One turn of the loop writes for so long; others want their turn too.
_SLICE_SECONDS = 0.01
_SOCKETS_A_LOOK = 128
# A burst is joined to writes of about so many bytes.
WRITE_BYTES = 262_144
# Lines with frames of their own, and holes in a batch, up to which a batch is worth having.
_FEW = 64


class Wire:
    """Sockets that all get the same frames. Each line is in it once, with a member it stands for.

    A line that is not to be written to directly any more goes, and its member with it, to those who
    are `apart`.
    """

    __slots__ = ("_apart", "fds", "lines", "members", "turn")

    def __init__(self, turn: Turn, apart: dict[Any, None]) -> None:
        self.turn = turn
        self._apart = apart
        self.fds = array("i")
        self.lines: list[Line] = []
        self.members: list[Any] = []

    def add(self, line: Line, member: Hashable) -> bool:
        """False where the line is here already, for another member."""
        if self in line.wires:
            return False
        self.turn.fix(self)
        line.wires[self] = len(self.lines)
        self.lines.append(line)
        self.fds.append(line.fd)
        self.members.append(member)
        return True

    def remove(self, line: Line) -> Any:
        """Returns the member it stood for. What was shared before is still sent to it."""
        self.turn.fix(self)
        self.turn.pull(line)
        last = self.lines[-1]
        place = line.wires.pop(self)
        if last is not line:
            self.turn.pull(last)
            last.wires[self] = place
            self.lines[place], self.fds[place] = last, last.fd
        member, self.members[place] = self.members[place], self.members[-1]
        self.lines.pop()
        self.fds.pop()
        self.members.pop()
        return member

    def release(self, line: Line) -> None:
        """Remove a line that is not to be written to directly."""
        self._apart[self.remove(line)] = None


class _Batch:
    """Frames for the sockets of some stretches of a wire."""

    __slots__ = ("_data", "fixed", "frames", "pulled", "size", "stretches", "wire", "without")

    def __init__(self, wire: Wire, without: Line | None) -> None:
        self.wire = wire
        self.without = without
        self.stretches = [(0, len(wire.fds))]
        self.frames: list[Prepared] = []
        self.size = 0
        # Members of the wire that get all this by themselves.
        self.pulled: list[Line] = []
        # Takes no more frames: some were written, or the wire is another by now.
        self.fixed = False
        self._data = b""
        if without is not None and wire in without.wires:
            self.cut(without.wires[wire])

    def add(self, frame: Prepared) -> None:
        self.frames.append(frame)
        self.size += len(frame.frame())

    def takes(self, wire: Wire, frame: Prepared, without: Line | None) -> bool:
        same = self.wire is wire and self.without is without and not self.fixed
        return same and self.size + len(frame.frame()) <= WRITE_BYTES

    def cut(self, place: int) -> bool:
        """Leave this place out; False where it is not to come, or was."""
        for number, (start, stop) in enumerate(self.stretches):
            if start <= place < stop:
                halves = (start, place), (place + 1, stop)
                self.stretches[number : number + 1] = [half for half in halves if half[0] < half[1]]
                return True
        return False

    def next(self) -> tuple[int, int]:
        """Some places; they count as written from here on."""
        self.fixed = True
        start, stop = self.stretches[0]
        end = min(start + _SOCKETS_A_LOOK, stop)
        self.stretches[:1] = [(end, stop)] if end < stop else []
        return start, end

    def rest(self) -> list[Line]:
        return [line for start, stop in self.stretches for line in self.wire.lines[start:stop]]

    @property
    def data(self) -> bytes:
        if not self._data:
            self._data = b"".join([frame.frame() for frame in self.frames])
        return self._data


class Turn:
    """Everything is called on the loop it belongs to."""

    __slots__ = ("_due", "_loop", "batch", "lines")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = False
        #: Lines that have something to write.
        self.lines: list[Line] = []
        #: For `Line.put`, which would call us for nothing without.
        self.batch: _Batch | None = None

    def soon(self) -> None:
        """There is something to write."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def wire(self, apart: dict[Any, None]) -> Wire:
        """A wire without anybody; who leaves it because it has to is put to `apart`."""
        return Wire(self, apart)

    def share(self, wire: Wire, frame: Prepared, without: Line | None = None) -> None:
        """Send a frame to everybody on a wire but one, at the end of this turn."""
        batch = self.batch
        if batch is not None:
            if batch.takes(wire, frame, without):
                batch.add(frame)
                for line in batch.pulled:
                    line.put(frame)
                return
            self._settle()
        if len(self.lines) > _FEW:
            for line in wire.lines:
                if line is not without:
                    line.put(frame)
            return
        batch = _Batch(wire, without)
        batch.add(frame)
        self.batch = batch
        self.soon()
        for line in tuple(self.lines):
            if line.first is not None:
                self.pull(line)

    def fix(self, wire: Wire) -> None:
        """The wire is about to change."""
        if self.batch is not None and self.batch.wire is wire:
            self.batch.fixed = True

    def pull(self, line: Line) -> None:
        """Put what a batch has for a line to that line itself, if there is such a thing."""
        batch = self.batch
        if batch is None:
            return
        place = line.wires.get(batch.wire)
        if place is None or not batch.cut(place):
            return
        batch.pulled.append(line)
        for frame in batch.frames:
            line.put(frame)
        if len(batch.stretches) > _FEW:
            self._settle()

    def _settle(self) -> None:
        """Have no batch: what is left of it is put to each."""
        batch, self.batch = self.batch, None
        if batch is not None:
            for line in batch.rest():
                for frame in batch.frames:
                    line.put(frame)

    # --- writing --------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._due = False
        until = time.perf_counter() + _SLICE_SECONDS
        if self.lines:
            self._write_lines(until)
        if self.batch is not None:
            self._write_batch(until)
        if self.lines or self.batch is not None:
            self.soon()

    def _write_batch(self, until: float) -> None:
        # The innermost loop of a fan-out: nothing is called in it but the kernel.
        write = os.write
        while (batch := self.batch) is not None and batch.stretches:
            wire, data = batch.wire, batch.data
            size = len(data)
            start, end = batch.next()
            short: list[tuple[int, int]] = []
            for fd in wire.fds[start:end]:
                try:
                    sent = write(fd, data)
                except OSError:
                    # Full or broken: the transport finds out which.
                    sent = 0
                if sent != size:
                    short.append((fd, sent))
            if short:
                # Lines first: what a transport does about it may move them to other places.
                lines = [(wire.lines[wire.fds.index(fd, start, end)], sent) for fd, sent in short]
                for line, sent in lines:
                    line.transport.write(data[sent:])
            if time.perf_counter() > until:
                break
        if batch is not None and not batch.stretches:
            self.batch = None

    def _write_lines(self, until: float) -> None:
        lines = self.lines.copy()
        self.lines.clear()
        write = os.write
        last, frame, size = None, b"", 0
        for start in range(0, len(lines), _SOCKETS_A_LOOK):
            if start and time.perf_counter() > until:
                self.lines[:0] = lines[start:]
                return
            for line in lines[start : start + _SOCKETS_A_LOOK]:
                first = line.first
                if first is None or line.odd:
                    continue
                if line.more is not None:
                    line.flush()
                    continue
                line.first = None
                if first is not last:
                    # Neighbours mostly get the same frame.
                    last, frame = first, first.frame()
                    size = len(frame)
                try:
                    sent = write(line.fd, frame)
                except OSError:
                    # Full, broken, or none of its own (-1): the transport finds out which.
                    sent = 0
                if sent != size:
                    line.transport.write(frame[sent:])


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """The one of this loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn
