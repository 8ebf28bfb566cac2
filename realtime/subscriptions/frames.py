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

Member = TypeVar("Member")


def of_change(event: DatabaseEvent, delivery: Delivery[Member]) -> str:
    """The frame of one event for one audience."""
    data = change_payload.data(event, delivery.select, delivery.show_old, op=delivery.op)
    key = delivery.audience.key
    return key.frame.encode(Version(key.version), key.topic, delivery.op, delivery.ids, data)


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
