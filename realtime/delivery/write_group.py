"""Write groups: sockets that get the same frames, and batches of frames that wait for them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realtime.delivery.frame import SharedFrame

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox
    from realtime.delivery.write_scheduler import WriteScheduler


@dataclass(frozen=True, slots=True)
class WriteBounds:
    """How much an event loop writes at a time.

    `seconds` of writing are what one iteration of the loop has, which has other work too; the clock
    is read after every `sockets` that were written to. About `write_bytes` of a burst are joined to
    one write. A batch is worth its cost up to `few` outboxes with frames of their own, and up to as
    many gaps in it.
    """

    seconds: float = 0.01
    sockets: int = 128
    write_bytes: int = 262_144
    few: int = 64


class _Encoding:
    """The sockets of a group that get the same bytes, each with its recipient."""

    __slots__ = ("compressed", "fds", "outboxes", "recipients")

    def __init__(self, compressed: bool) -> None:
        self.compressed = compressed
        self.fds = array("i")
        self.outboxes: list[DirectOutbox] = []
        self.recipients: list[Any] = []


class WriteGroup:
    """A write group: sockets that get the same frames, plain or compressed.

    Each outbox is in it once. When an outbox may not be written to directly any more, its recipient
    goes back to `single`, the recipients that are handed frames one by one.
    """

    __slots__ = ("_single", "encodings", "scheduler")

    def __init__(self, scheduler: WriteScheduler, single: dict[Any, None]) -> None:
        self.scheduler = scheduler
        self._single = single
        self.encodings = _Encoding(False), _Encoding(True)

    def add(self, outbox: DirectOutbox, recipient: Hashable) -> bool:
        """Add an outbox. False, and nothing added, if it is in the group for another recipient."""
        if self in outbox.groups:
            return False
        self.scheduler.freeze(self)
        encoding = self.encodings[outbox.compressed]
        outbox.groups[self] = len(encoding.outboxes)
        encoding.outboxes.append(outbox)
        encoding.fds.append(outbox.fd)
        encoding.recipients.append(recipient)
        return True

    def remove(self, outbox: DirectOutbox) -> Any:
        """Remove an outbox and return its recipient. Frames that were sent to the group before
        still reach it."""
        self.scheduler.freeze(self)
        self.scheduler.withdraw(outbox)
        encoding = self.encodings[outbox.compressed]
        last = encoding.outboxes[-1]
        index = outbox.groups.pop(self)
        if last is not outbox:
            self.scheduler.withdraw(last)
            last.groups[self] = index
            encoding.outboxes[index], encoding.fds[index] = last, last.fd
        recipient, encoding.recipients[index] = encoding.recipients[index], encoding.recipients[-1]
        encoding.outboxes.pop()
        encoding.fds.pop()
        encoding.recipients.pop()
        return recipient

    def release(self, outbox: DirectOutbox) -> None:
        """Remove an outbox that may not be written to directly."""
        self._single[self.remove(outbox)] = None


class WriteBatch:
    """Frames for the sockets of some index ranges of a group."""

    __slots__ = (
        "_made",
        "begun",
        "frames",
        "frozen",
        "group",
        "ranges",
        "size",
        "withdrawn",
        "without",
    )

    def __init__(self, group: WriteGroup, without: DirectOutbox | None) -> None:
        self.group = group
        self.without = without
        self.ranges = [(each, 0, len(each.fds)) for each in group.encodings if each.fds]
        self.frames: list[SharedFrame] = []
        self.size = 0
        # Outboxes of the group that were handed these frames one by one.
        self.withdrawn: list[DirectOutbox] = []
        # Takes no more frames: the group has changed, or some sockets have these already.
        self.frozen = self.begun = False
        self._made: dict[bool, bytes] = {}
        if without is not None and group in without.groups:
            self.cut(without)

    def add(self, frame: SharedFrame) -> None:
        self.frames.append(frame)
        self.size += len(frame.frame())

    def takes(self, group: WriteGroup, frame: SharedFrame, without: DirectOutbox | None) -> bool:
        same = self.group is group and self.without is without
        return same and not self.frozen and not self.full(frame)

    def full(self, frame: SharedFrame) -> bool:
        return self.size + len(frame.frame()) > self.group.scheduler.bounds.write_bytes

    def cut(self, outbox: DirectOutbox) -> bool:
        """Leave this outbox out. False if it was written already, or is not in the batch."""
        index, mine = outbox.groups[self.group], self.group.encodings[outbox.compressed]
        for number, (encoding, start, stop) in enumerate(self.ranges):
            if encoding is mine and start <= index < stop:
                halves = (encoding, start, index), (encoding, index + 1, stop)
                self.ranges[number : number + 1] = [half for half in halves if half[1] < half[2]]
                return True
        return False

    def next(self) -> tuple[_Encoding, int, int]:
        """The next range of sockets: encoding, start and end. It counts as written from here on."""
        self.begun = self.frozen = True
        encoding, start, stop = self.ranges[0]
        end = min(start + self.group.scheduler.bounds.sockets, stop)
        self.ranges[:1] = [(encoding, end, stop)] if end < stop else []
        return encoding, start, end

    def dissolve(self) -> None:
        """Hand the frames to every outbox that has not got them, joined to one frame, because there
        may be thousands of frames and of outboxes."""
        rest = [
            outbox
            for encoding, start, stop in self.ranges
            for outbox in encoding.outboxes[start:stop]
        ]
        if rest:
            compressed = self.data(True) if self.group.encodings[True].fds else None
            whole = SharedFrame.made_of(self.data(False), compressed)
            for outbox in rest:
                outbox.put(whole)

    def data(self, compressed: bool) -> bytes:
        """The bytes of all frames together. No frame may be added afterwards."""
        made = self._made.get(compressed)
        if made is None:
            made = b"".join([frame.form(compressed) for frame in self.frames])
            self._made[compressed] = made
        return made
