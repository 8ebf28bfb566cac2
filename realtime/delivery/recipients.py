"""Recipients: a set of members that get the same frames, in the order of joining.

Pure. Outboxes of our own server can be written to together: their members are in a write group, and
one call hands a frame to all of them. To every other member, and to a member whose outbox cannot be
written to directly at the moment, a frame is put one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Sink

if TYPE_CHECKING:
    from realtime.delivery.direct_outbox import DirectOutbox
    from realtime.delivery.write_group import WriteGroup
    from realtime.delivery.write_scheduler import WriteScheduler

# A write group costs more than it saves for fewer.
_MANY = 16


R = TypeVar("R")


class Recipients(Generic[R]):
    """`sink_of` gives the outbox of a member, which does not change once it was written to
    directly."""

    __slots__ = ("_group", "_members", "_single", "_sink_of")

    def __init__(self, sink_of: Callable[[R], Sink]) -> None:
        self._sink_of = sink_of
        self._members: dict[R, None] = {}
        # The members that are in no write group; the same dict as `_members` while there is none.
        self._single = self._members
        self._group: WriteGroup | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[R]:
        return iter(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def add(self, member: R) -> None:
        """The member gets every frame that is sent from here on."""
        if member not in self._members:
            self._members[member] = self._single[member] = None

    def discard(self, member: R) -> None:
        """The member gets no frame that is sent from here on. No error for one that is not here."""
        if member not in self._members:
            return
        del self._members[member]
        if self._group is None:
            return
        if member in self._single:
            del self._single[member]
        else:
            self._group.remove(self._direct_outbox(member))

    def send(self, frame: SharedFrame, without: R | None = None) -> None:
        """Hand a frame to every member but `without`; never waits."""
        sink_of = self._sink_of
        if self._group is not None or len(self._members) >= _MANY:
            self._regroup()
        for member in self._single:
            if member is not without:
                sink_of(member).put(frame)
        if self._group is not None:
            grouped = without in self._members and without not in self._single
            other = self._direct_outbox(without) if without is not None and grouped else None
            self._group.scheduler.send(self._group, frame, other)

    def _direct_outbox(self, member: R) -> DirectOutbox:
        # Members of a group are those whose outbox said that it is direct.
        return cast("DirectOutbox", self._sink_of(member))

    def _regroup(self) -> None:
        """Move every member whose outbox can be written to directly to the write group."""
        sink_of = self._sink_of
        for member in tuple(self._single):
            scheduler: WriteScheduler | None = sink_of(member).direct
            if scheduler is None:
                continue
            if self._group is None:
                self._single = dict(self._members)
                self._group = scheduler.group(self._single)
            if self._group.add(self._direct_outbox(member), member):
                del self._single[member]
