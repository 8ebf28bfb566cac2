"""Frames of row changes, made once for each audience. An audience of code in this process gets
the change itself in place of a frame.

Pure. Frames for one client alone are made by the session.
"""

from __future__ import annotations

from typing import TypeVar

from realtime.delivery.frame import SharedFrame
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.serializer import Version
from realtime.subscriptions import change_payload
from realtime.subscriptions.index import Delivery
from realtime.subscriptions.seen_change import SeenChange
from realtime.subscriptions.subscriber import Subscriber

Recipient = TypeVar("Recipient")

# Bytes of a character in a text with others than ASCII: up to four in memory and in UTF-8.
_WIDE = 4

# Topic, version and kind of frame, operation, binding ids, columns, whether the old image is shown,
# and the receipt: all that the text of a frame depends on, beside the change.
_Shape = tuple[
    str, str, ChangeFrame, str, tuple[int, ...], tuple[str, ...] | None, bool, str | None
]


class ChangeFrames:
    """The frames of one event, each encoded once. Audiences that see the same of it and joined
    alike share the frame, others that see the same share its data object."""

    __slots__ = ("_data", "_event", "_shared", "size")

    def __init__(self, event: DatabaseEvent) -> None:
        self._event = event
        # By columns, whether the old image is shown, operation, and receipt.
        self._data: dict[tuple[tuple[str, ...] | None, bool, str, str | None], bytes] = {}
        self._shared: dict[_Shape, SharedFrame] = {}
        #: About how many bytes the texts of all frames occupy, or their frames, if that is more.
        self.size = 0

    @property
    def encoded(self) -> int:
        """How many frames there are."""
        return len(self._shared)

    def of(self, delivery: Delivery[Recipient], tx: str | None = None) -> SharedFrame | SeenChange:
        """The frame for one audience, or for those of it who may know the receipt `tx`: the same
        object for all that get the same text. Raises what encoding the row raises."""
        key, op, ids = delivery.audience.key, delivery.op, delivery.ids
        select, show_old = delivery.select, delivery.show_old
        if key.frame is ChangeFrame.VALUE:
            return SeenChange(self._event, select, show_old, op, tx=tx)
        shape = (key.topic, key.version, key.frame, op, ids, select, show_old, tx)
        frame = self._shared.get(shape)
        if frame is None:
            data = self._data_of(select, show_old, op, tx)
            text = key.frame.encode(Version(key.version), key.topic, op, ids, data)
            frame = self._shared[shape] = SharedFrame(text)
            self.size += len(text) if text.isascii() else _WIDE * len(text)
        return frame

    def _data_of(
        self, select: tuple[str, ...] | None, show_old: bool, op: str, tx: str | None
    ) -> bytes:
        seen = select, show_old, op, tx
        data = self._data.get(seen)
        if data is None:
            data = change_payload.data(self._event, select, show_old, op=op, tx=tx)
            self._data[seen] = data
        return data


def of_row(
    event: DatabaseEvent,
    subscriber: Subscriber,
    ids: tuple[int, ...],
    select: tuple[str, ...] | None,
    *,
    op: str | None = None,
    snapshot: bool = False,
) -> str | SeenChange:
    """The frame of a row for one channel, for a row that did not change."""
    if subscriber.change_frame is ChangeFrame.VALUE:
        return SeenChange(event, select, False, op or event.op, snapshot)
    data = change_payload.data(event, select, False, op=op, snapshot=snapshot)
    return subscriber.change_frame.encode(
        subscriber.version, subscriber.topic, op or event.op, ids, data
    )
