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


class _Strand:
    """Sockets that get the same bytes, each with the member it stands for."""

    __slots__ = ("compressed", "fds", "lines", "members")

    def __init__(self, compressed: bool) -> None:
        self.compressed = compressed
        self.fds = array("i")
        self.lines: list[Line] = []
        self.members: list[Any] = []


class Wire:
    """Sockets that all get the same frames: those that take them compressed, and the others.

    Each line is in it once. One that is not to be written to directly any more goes, and its member
    with it, to those who are `apart`.
    """

    __slots__ = ("_apart", "strands", "turn")

    def __init__(self, turn: Turn, apart: dict[Any, None]) -> None:
        self.turn = turn
        self._apart = apart
        self.strands = _Strand(False), _Strand(True)

    def add(self, line: Line, member: Hashable) -> bool:
        """False where the line is here already, for another member."""
        if self in line.wires:
            return False
        self.turn.fix(self)
        strand = self.strands[line.compressed]
        line.wires[self] = len(strand.lines)
        strand.lines.append(line)
        strand.fds.append(line.fd)
        strand.members.append(member)
        return True

    def remove(self, line: Line) -> Any:
        """Returns the member it stood for. What was shared before is still sent to it."""
        self.turn.fix(self)
        self.turn.pull(line)
        strand = self.strands[line.compressed]
        last = strand.lines[-1]
        place = line.wires.pop(self)
        if last is not line:
            self.turn.pull(last)
            last.wires[self] = place
            strand.lines[place], strand.fds[place] = last, last.fd
        member, strand.members[place] = strand.members[place], strand.members[-1]
        strand.lines.pop()
        strand.fds.pop()
        strand.members.pop()
        return member

    def release(self, line: Line) -> None:
        """Remove a line that is not to be written to directly."""
        self._apart[self.remove(line)] = None


class _Batch:
    """Frames for the sockets of some stretches of a wire's strands."""

    __slots__ = ("_made", "fixed", "frames", "pulled", "size", "stretches", "wire", "without")

    def __init__(self, wire: Wire, without: Line | None) -> None:
        self.wire = wire
        self.without = without
        self.stretches = [(each, 0, len(each.fds)) for each in wire.strands if each.fds]
        self.frames: list[Prepared] = []
        self.size = 0
        # Members of the wire that get all this by themselves.
        self.pulled: list[Line] = []
        # Takes no more frames: some were written, or the wire is another by now.
        self.fixed = False
        self._made: dict[bool, bytes] = {}
        if without is not None and wire in without.wires:
            self.cut(without)

    def add(self, frame: Prepared) -> None:
        self.frames.append(frame)
        self.size += len(frame.frame())

    def takes(self, wire: Wire, frame: Prepared, without: Line | None) -> bool:
        same = self.wire is wire and self.without is without and not self.fixed
        return same and self.size + len(frame.frame()) <= WRITE_BYTES

    def cut(self, line: Line) -> bool:
        """Leave this line out; False where it is not to come, or was."""
        place, mine = line.wires[self.wire], self.wire.strands[line.compressed]
        for number, (strand, start, stop) in enumerate(self.stretches):
            if strand is mine and start <= place < stop:
                halves = (strand, start, place), (strand, place + 1, stop)
                self.stretches[number : number + 1] = [half for half in halves if half[1] < half[2]]
                return True
        return False

    def next(self) -> tuple[_Strand, int, int]:
        """Some places; they count as written from here on."""
        self.fixed = True
        strand, start, stop = self.stretches[0]
        end = min(start + _SOCKETS_A_LOOK, stop)
        self.stretches[:1] = [(strand, end, stop)] if end < stop else []
        return strand, start, end

    def rest(self) -> list[Line]:
        return [line for strand, start, stop in self.stretches for line in strand.lines[start:stop]]

    def data(self, compressed: bool) -> bytes:
        """All frames. There will be no others."""
        made = self._made.get(compressed)
        if made is None:
            made = b"".join([frame.form(compressed) for frame in self.frames])
            self._made[compressed] = made
        return made


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
            for strand in wire.strands:
                for line in strand.lines:
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
        if batch is None or batch.wire not in line.wires or not batch.cut(line):
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
                    line.transport.write(data[sent:])
            if time.perf_counter() > until:
                break
        if batch is not None and not batch.stretches:
            self.batch = None

    def _write_lines(self, until: float) -> None:
        lines = self.lines.copy()
        self.lines.clear()
        write = os.write
        last, compressed, frame, size = None, False, b"", 0
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
                    line.transport.write(frame[sent:])


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """The one of this loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn
