"""Recipients: channels that get the same frames, in the order of joining.

Pure. The outboxes of our own server can be written to together: their recipients are in a write
group, and one call hands a frame to all of them. Other recipients, and those whose outbox cannot be
written to directly at the moment, are handed a frame one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from auth_rls.few import Few, added, items, removed
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
    """A set of recipients. `sink_of` returns the outbox of one, which must stay the same once it
    was written to directly."""

    __slots__ = ("_all", "_group", "_single", "_sink_of")

    def __init__(self, sink_of: Callable[[R], Sink]) -> None:
        self._sink_of = sink_of
        self._all: Few[R] = None
        # Both None until there is a write group: then the group, and the recipients outside it.
        self._group: WriteGroup | None = None
        self._single: dict[R, None] | None = None

    def __len__(self) -> int:
        return len(items(self._all))

    def __iter__(self) -> Iterator[R]:
        return iter(items(self._all))

    def __contains__(self, recipient: object) -> bool:
        return recipient in items(self._all)

    def add(self, recipient: R) -> None:
        """The recipient gets every frame that is sent from here on."""
        if self._single is not None and recipient not in self:
            self._single[recipient] = None
        self._all = added(self._all, recipient)

    def discard(self, recipient: R) -> None:
        """The recipient gets no frame that is sent from here on. Does nothing for a recipient that
        was not added."""
        if recipient not in self:
            return
        self._all = removed(self._all, recipient)
        if self._group is None or self._single is None:
            return
        if recipient in self._single:
            del self._single[recipient]
        else:
            self._group.remove(self._direct_outbox(recipient))

    def send(self, frame: SharedFrame | Any, without: R | None = None) -> None:
        """Hand a frame to every recipient but `without`. Does not wait. Only recipients whose sinks
        take it may be handed anything but a `SharedFrame`."""
        sink_of = self._sink_of
        if self._group is not None or len(self) >= _MANY:
            self._regroup()
        for recipient in items(self._all) if self._single is None else self._single:
            if recipient is not without:
                sink_of(recipient).put(frame)
        if self._group is not None and self._single is not None:
            grouped = without in self and without not in self._single
            other = self._direct_outbox(without) if without is not None and grouped else None
            self._group.scheduler.send(self._group, frame, other)

    def send_apart(
        self, frame: SharedFrame | Any, own: Collection[R], own_frame: SharedFrame | Any
    ) -> None:
        """Hand `own_frame` to the recipients in `own`, and `frame` to every other one. Does not
        wait."""
        sink_of = self._sink_of
        if len(own) == 1:
            (recipient,) = own
            self.send(frame, without=recipient)
            sink_of(recipient).put(own_frame)
            return
        for recipient in items(self._all):
            sink_of(recipient).put(own_frame if recipient in own else frame)

    def _direct_outbox(self, recipient: R) -> DirectOutbox:
        # Only direct outboxes are in a group.
        return cast("DirectOutbox", self._sink_of(recipient))

    def _regroup(self) -> None:
        """Move every recipient whose outbox can be written to directly to the write group."""
        sink_of = self._sink_of
        for recipient in tuple(items(self._all) if self._single is None else self._single):
            scheduler: WriteScheduler | None = sink_of(recipient).direct
            if scheduler is None:
                continue
            if self._group is None or self._single is None:
                self._single = dict.fromkeys(items(self._all))
                self._group = scheduler.group(self._single)
            if self._group.add(self._direct_outbox(recipient), recipient):
                del self._single[recipient]
