"""Write groups: sockets that get the same frames, and batches of frames that wait for them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from realtime.delivery.frame import SharedFrame

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox
    from realtime.delivery.write_scheduler import WriteScheduler

# About how many bytes of a burst are joined to one write.
WRITE_BYTES = 262_144
# How many sockets are written to between two readings of the clock.
SOCKETS_A_LOOK = 128


class _Encoding:
    """The sockets of a group that get the same bytes, each with its member."""

    __slots__ = ("compressed", "fds", "lines", "members")

    def __init__(self, compressed: bool) -> None:
        self.compressed = compressed
        self.fds = array("i")
        self.lines: list[DirectOutbox] = []
        self.members: list[Any] = []


class WriteGroup:
    """A write group: sockets that get the same frames, plain or compressed.

    Each outbox is in it once. The member of one that may not be written to directly any more is put
    back among the `single` ones of the recipients.
    """

    __slots__ = ("_single", "strands", "turn")

    def __init__(self, turn: WriteScheduler, single: dict[Any, None]) -> None:
        self.turn = turn
        self._single = single
        self.strands = _Encoding(False), _Encoding(True)

    def add(self, line: DirectOutbox, member: Hashable) -> bool:
        """False where the outbox is here already, for another member."""
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
        """Returns the member of the outbox. Frames that were shared before are still sent to it."""
        self.turn.fix(self)
        self.turn.pull(line)
        strand = self.strands[line.compressed]
        last = strand.lines[-1]
        index = line.wires.pop(self)
        if last is not line:
            self.turn.pull(last)
            last.wires[self] = index
            strand.lines[index], strand.fds[index] = last, last.fd
        member, strand.members[index] = strand.members[index], strand.members[-1]
        strand.lines.pop()
        strand.fds.pop()
        strand.members.pop()
        return member

    def release(self, line: DirectOutbox) -> None:
        """Remove an outbox that may not be written to directly."""
        self._single[self.remove(line)] = None


class WriteBatch:
    """Frames for the sockets of some index ranges (`stretches`) of a group."""

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
        # Outboxes of the group that these frames were put to one by one.
        self.pulled: list[DirectOutbox] = []
        # Takes no more frames: the group has changed, or some sockets have these already.
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
        """Leave this outbox out; False where it is not among those still to be written."""
        index, mine = line.wires[self.wire], self.wire.strands[line.compressed]
        for number, (strand, start, stop) in enumerate(self.stretches):
            if strand is mine and start <= index < stop:
                halves = (strand, start, index), (strand, index + 1, stop)
                self.stretches[number : number + 1] = [half for half in halves if half[1] < half[2]]
                return True
        return False

    def next(self) -> tuple[_Encoding, int, int]:
        """The next range; it counts as written from here on."""
        self.begun = self.fixed = True
        strand, start, stop = self.stretches[0]
        end = min(start + SOCKETS_A_LOOK, stop)
        self.stretches[:1] = [(strand, end, stop)] if end < stop else []
        return strand, start, end

    def settle(self) -> None:
        """Put the frames to every outbox that has not got them, as one frame: there may be
        thousands of both."""
        rest = [line for strand, start, stop in self.stretches for line in strand.lines[start:stop]]
        if rest:
            compressed = self.data(True) if self.wire.strands[True].fds else None
            whole = SharedFrame.made_of(self.data(False), compressed)
            for line in rest:
                line.put(whole)

    def data(self, compressed: bool) -> bytes:
        """The bytes of all frames; none may be added afterwards."""
        made = self._made.get(compressed)
        if made is None:
            made = b"".join([frame.form(compressed) for frame in self.frames])
            self._made[compressed] = made
        return made
