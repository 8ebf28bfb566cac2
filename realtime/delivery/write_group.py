"""Sockets that all get the same frames, and the frames that wait for them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from realtime.delivery.frame import SharedFrame

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox
    from realtime.delivery.write_scheduler import WriteScheduler

# A burst is joined to writes of about so many bytes.
WRITE_BYTES = 262_144
# How many sockets are written to between two looks at the clock.
SOCKETS_A_LOOK = 128


class _Encoding:
    """Sockets that get the same bytes, each with the member it stands for."""

    __slots__ = ("compressed", "fds", "lines", "members")

    def __init__(self, compressed: bool) -> None:
        self.compressed = compressed
        self.fds = array("i")
        self.lines: list[DirectOutbox] = []
        self.members: list[Any] = []


class WriteGroup:
    """Sockets that all get the same frames: those that take them compressed, and the others.

    Each line is in it once. One that is not to be written to directly any more goes, and its member
    with it, to those who are `apart`.
    """

    __slots__ = ("_apart", "strands", "turn")

    def __init__(self, turn: WriteScheduler, apart: dict[Any, None]) -> None:
        self.turn = turn
        self._apart = apart
        self.strands = _Encoding(False), _Encoding(True)

    def add(self, line: DirectOutbox, member: Hashable) -> bool:
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

    def remove(self, line: DirectOutbox) -> Any:
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

    def release(self, line: DirectOutbox) -> None:
        """Remove a line that is not to be written to directly."""
        self._apart[self.remove(line)] = None


class WriteBatch:
    """Frames for the sockets of some stretches of a wire's strands."""

    __slots__ = (
        "_made",
        "begun",
        "fixed",
        "frames",
        "pulled",
        "size",
        "stretches",
        "wire",
        "without",
    )

    def __init__(self, wire: WriteGroup, without: DirectOutbox | None) -> None:
        self.wire = wire
        self.without = without
        self.stretches = [(each, 0, len(each.fds)) for each in wire.strands if each.fds]
        self.frames: list[SharedFrame] = []
        self.size = 0
        # Members of the wire that get all this by themselves.
        self.pulled: list[DirectOutbox] = []
        # Takes no more frames: the wire is another by now, or some sockets have these already.
        self.fixed = self.begun = False
        self._made: dict[bool, bytes] = {}
        if without is not None and wire in without.wires:
            self.cut(without)

    def add(self, frame: SharedFrame) -> None:
        self.frames.append(frame)
        self.size += len(frame.frame())

    def takes(self, wire: WriteGroup, frame: SharedFrame, without: DirectOutbox | None) -> bool:
        same = self.wire is wire and self.without is without
        return same and not self.fixed and not self.full(frame)

    def full(self, frame: SharedFrame) -> bool:
        return self.size + len(frame.frame()) > WRITE_BYTES

    def cut(self, line: DirectOutbox) -> bool:
        """Leave this line out; False where it is not to come, or was."""
        place, mine = line.wires[self.wire], self.wire.strands[line.compressed]
        for number, (strand, start, stop) in enumerate(self.stretches):
            if strand is mine and start <= place < stop:
                halves = (strand, start, place), (strand, place + 1, stop)
                self.stretches[number : number + 1] = [half for half in halves if half[1] < half[2]]
                return True
        return False

    def next(self) -> tuple[_Encoding, int, int]:
        """Some places; they count as written from here on."""
        self.begun = self.fixed = True
        strand, start, stop = self.stretches[0]
        end = min(start + SOCKETS_A_LOOK, stop)
        self.stretches[:1] = [(strand, end, stop)] if end < stop else []
        return strand, start, end

    def settle(self) -> None:
        """Put all this to everybody who has not got it, each by itself: as one frame, for there
        may be thousands of both."""
        rest = [line for strand, start, stop in self.stretches for line in strand.lines[start:stop]]
        if rest:
            compressed = self.data(True) if self.wire.strands[True].fds else None
            whole = SharedFrame.made_of(self.data(False), compressed)
            for line in rest:
                line.put(whole)

    def data(self, compressed: bool) -> bytes:
        """All frames. There will be no others."""
        made = self._made.get(compressed)
        if made is None:
            made = b"".join([frame.form(compressed) for frame in self.frames])
            self._made[compressed] = made
        return made
