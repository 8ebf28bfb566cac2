"""Who gets the same frames: a set in the order of joining, and the quickest way to all of it.

Pure. Where a member's outlet can be written to together with others (a line of our own server), the
member is on a wire: handing a frame to all of those is one call, however many there are. To
everybody else, and to anybody while it is not possible, a frame is put one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Sink

# Fewer are not worth a wire.
_MANY = 16


class Wire(Protocol):
    """Sinks that one frame is written to in one pass, each for a member."""

    def add(self, sink: Any, member: Any) -> bool: ...
    def remove(self, sink: Any) -> Any: ...


class Turn(Protocol):
    """Writes what has to be written, soon. Where a sink says it is `direct`, it gives this."""

    def wire(self, apart: dict[Any, None]) -> Wire: ...
    def share(self, wire: Any, frame: SharedFrame, without: Any = None) -> None: ...


R = TypeVar("R")


class Recipients(Generic[R]):
    """`sink_of` gives a member's outlet. One that was direct once stays the member's."""

    __slots__ = ("_apart", "_members", "_sink_of", "_turn", "_wire")

    def __init__(self, sink_of: Callable[[R], Sink]) -> None:
        self._sink_of = sink_of
        self._members: dict[R, None] = {}
        # Those that are on no wire. The members themselves while there is none.
        self._apart = self._members
        self._turn: Turn | None = None
        self._wire: Wire | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[R]:
        return iter(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def add(self, member: R) -> None:
        """From here on it gets what is sent."""
        if member not in self._members:
            self._members[member] = self._apart[member] = None

    def discard(self, member: R) -> None:
        """From here on it gets nothing that is sent; nothing happens to who is not here."""
        if member not in self._members:
            return
        del self._members[member]
        if self._wire is None:
            return
        if member in self._apart:
            del self._apart[member]
        else:
            self._wire.remove(self._sink_of(member))

    def send(self, frame: SharedFrame, without: R | None = None) -> None:
        """Hand a frame to everybody but one; never waits."""
        sink_of = self._sink_of
        if self._wire is not None or len(self._members) >= _MANY:
            self._sort()
        for member in self._apart:
            if member is not without:
                sink_of(member).put(frame)
        if self._turn is not None:
            wired = without in self._members and without not in self._apart
            other = sink_of(without) if without is not None and wired else None
            self._turn.share(self._wire, frame, other)

    def _sort(self) -> None:
        """Put on the wire whoever can be there."""
        sink_of = self._sink_of
        for member in tuple(self._apart):
            sink = sink_of(member)
            turn: Turn | None = sink.direct
            if turn is None:
                continue
            if self._wire is None:
                self._turn = turn
                self._apart = dict(self._members)
                self._wire = turn.wire(self._apart)
            if self._wire.add(sink, member):
                del self._apart[member]
