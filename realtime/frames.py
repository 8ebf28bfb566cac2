"""The frames that many sockets share: made once per audience, never per socket.

Pure. What a client is told alone is the session's business.
"""

from __future__ import annotations

from typing import TypeVar

from realtime import changes, protocol
from realtime.event import DatabaseEvent
from realtime.protocol import Version
from realtime.subscription import Delivery

Member = TypeVar("Member")


def of_change(event: DatabaseEvent, delivery: Delivery[Member]) -> str:
    """The frame of one event for one audience."""
    data = changes.data(event, delivery.select, delivery.show_old, op=delivery.op)
    key = delivery.audience.key
    payload = protocol.changes_payload(delivery.ids, data)
    return protocol.fanout(Version(key.version), key.topic, "postgres_changes", payload)


def of_row(
    event: DatabaseEvent,
    version: Version,
    topic: str,
    ids: tuple[int, ...],
    select: tuple[str, ...] | None,
    *,
    op: str | None = None,
    snapshot: bool = False,
) -> str:
    """The frame of a row that one channel is told of, though it did not change just now."""
    data = changes.data(event, select, False, op=op, snapshot=snapshot)
    payload = protocol.changes_payload(ids, data)
    return protocol.fanout(version, topic, "postgres_changes", payload)
