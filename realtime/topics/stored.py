"""Stored broadcasts: rows of `realtime_message`, written and read.

An inserted row is sent when its log entry arrives; the table is read again only for replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast as ToText

from realtime import conf
from realtime.event_log.event import RowImage
from realtime.models import Message
from realtime.protocol.serializer import Encoding
from realtime.topics.broadcast import Broadcast

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999


# No channel has this topic. Processes use it to end the connections of a user.
_CONTROL = ""


def user_to_disconnect(row: RowImage) -> str | None:
    """The user id whose connections a row of the table ends; None for a broadcast."""
    # Other programs insert rows that are kept, and may be granted no other.
    if row["topic"] != _CONTROL or row["kept"]:
        return None
    return str(msgspec.json.decode(row.text("payload")))


def store_disconnect(user_id: str) -> None:
    """Write to the log that the connections of a user id must end, in the open transaction if there
    is one. Raises what the database raises."""
    message = Broadcast(_CONTROL, True, "disconnect", msgspec.json.encode(user_id), Encoding.JSON)
    with transaction.atomic(using=conf.current().DATABASE):
        _store(message, kept=False)


def broadcast_of(row: RowImage) -> Broadcast:
    """The broadcast that a log entry of the table holds."""
    data = row.text("data")
    binary = data != b"null"
    return Broadcast(
        topic=row["topic"],
        private=row["private"],
        event=row["event"],
        payload=bytes.fromhex(data[1:-1].decode()) if binary else row.text("payload"),
        encoding=Encoding.BINARY if binary else Encoding.JSON,
        id=str(row["id"]) if row["kept"] else "",
        # Entries older than the column lack it.
        user_id=row.get("user_id") or "",
    )


def stored(alias: str, topic: str, since_ms: int, limit: int) -> list[Broadcast]:
    """The newest `limit` broadcasts to a private topic, the oldest of them first.

    `since_ms` is in milliseconds since 1970. Runs in a database thread; raises what the database
    raises.
    """
    since = _EPOCH + timedelta(milliseconds=min(max(since_ms, 0), _LATEST_MS))
    rows = Message.objects.using(alias).filter(
        topic=topic, private=True, kept=True, inserted_at__gte=since
    )
    newest = rows.order_by("-pk").annotate(text=ToText("payload", TextField()))
    found = newest.values("id", "event", "text", "data", "user_id")[:limit]
    return [_broadcast(topic, row) for row in reversed(found)]


def _broadcast(topic: str, row: Mapping[str, Any]) -> Broadcast:
    binary = row["data"] is not None
    return Broadcast(
        topic=topic,
        private=True,
        event=row["event"],
        payload=bytes(row["data"]) if binary else (row["text"] or "null").encode(),
        encoding=Encoding.BINARY if binary else Encoding.JSON,
        id=str(row["id"]),
        user_id=row["user_id"] or "",
    )


async def store_async(*messages: Broadcast) -> None:
    """`store` for async callers, in the thread that may have a transaction of theirs."""
    await sync_to_async(store, thread_sensitive=True)(*messages)


def store(*messages: Broadcast) -> None:
    """Write broadcasts to the log, in the open transaction or in one of their own. Raises
    ValueError for a message without a topic, and what the database raises."""
    if any(message.topic == _CONTROL for message in messages):
        raise ValueError("a broadcast has a topic")
    with transaction.atomic(using=conf.current().DATABASE):
        for message in messages:
            _store(message, kept=True)


def _store(message: Broadcast, kept: bool) -> None:
    """With `kept` False the row is deleted at once, and only its log entry stays."""
    alias = conf.current().DATABASE
    binary = message.encoding == Encoding.BINARY
    named = {"id": message.id} if message.id else {}
    row = Message(
        **named,
        topic=message.topic,
        private=message.private,
        event=message.event or "",
        payload=None if binary else msgspec.json.decode(message.payload),
        data=message.payload if binary else None,
        kept=kept,
        user_id=message.user_id or None,
    )
    row.save(using=alias, force_insert=True)
    if not kept:
        Message.objects.using(alias).filter(pk=row.pk).delete()
