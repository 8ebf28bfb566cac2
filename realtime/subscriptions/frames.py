"""Frames of row changes, made once for each audience.

Pure. Frames for one client alone are made by the session.
"""

from __future__ import annotations

from typing import TypeVar

from realtime.event_log.event import DatabaseEvent
from realtime.protocol.serializer import Version
from realtime.subscriptions import change_payload
from realtime.subscriptions.index import Delivery
from realtime.subscriptions.subscriber import Subscriber

Recipient = TypeVar("Recipient")


class ChangeFrames:
    """The frames of one event. Audiences that see the same of it share its data object, which is
    encoded once."""

    __slots__ = ("_data", "_event")

    def __init__(self, event: DatabaseEvent) -> None:
        self._event = event
        # By columns, whether the old image is shown, and operation.
        self._data: dict[tuple[tuple[str, ...] | None, bool, str], bytes] = {}

    def of(self, delivery: Delivery[Recipient]) -> str:
        """The frame for one audience. Raises what encoding the row raises."""
        select, show_old, op = seen = delivery.select, delivery.show_old, delivery.op
        data = self._data.get(seen)
        if data is None:
            data = change_payload.data(self._event, select, show_old, op=op)
            self._data[seen] = data
        key = delivery.audience.key
        return key.frame.encode(Version(key.version), key.topic, op, delivery.ids, data)


def of_row(
    event: DatabaseEvent,
    subscriber: Subscriber,
    ids: tuple[int, ...],
    select: tuple[str, ...] | None,
    *,
    op: str | None = None,
    snapshot: bool = False,
) -> str:
    """The frame of a row for one channel, for a row that did not change."""
    data = change_payload.data(event, select, False, op=op, snapshot=snapshot)
    return subscriber.change_frame.encode(
        subscriber.version, subscriber.topic, op or event.op, ids, data
    )
