"""The functions for a project's own Python code."""

from __future__ import annotations

from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from realtime import conf
from realtime.process.broadcast_sender import on_a_loop, send, send_now
from realtime.protocol.serializer import PREFIX, Encoding
from realtime.topics.broadcast import LONGEST_EVENT, LONGEST_TOPIC, Broadcast
from realtime.topics.presence import store as presence_store
from realtime.topics.stored import store, store_async
from realtime.wal.head import read_head

__all__ = ["abroadcast", "apresence", "broadcast", "head", "presence"]

_encode = msgspec.json.Encoder(decimal_format="number").encode


def broadcast(
    topic: str, event: str, payload: Any, *, private: bool = False, durable: bool = False
) -> None:
    """Send an event to all listeners of a topic.

    `topic` is its name without `realtime:`; a `private` topic is separate from the public one of
    the same name. `payload` is anything that is JSON (dates, UUIDs, decimals and dataclasses are
    encoded by msgspec), or `bytes`. Inside a transaction it is sent on commit; then, and from an
    event loop, errors are logged and not raised.

    `durable`: written to the log in the same transaction, so it is ordered with the changes of that
    transaction, never sent for a rollback, and can be replayed (if private) until it is pruned.

    Raises TypeError for a payload that is not JSON, ValueError for a topic or an event that is
    empty or a payload over LIMITS["payload_bytes"], and ConnectionError or TimeoutError when the
    channel layer does not answer.
    """
    message = make_broadcast(topic, event, payload, private)
    if durable:
        store(message)
    elif _in_transaction():
        alias = conf.current().DATABASE
        transaction.on_commit(lambda: send_now(message, quietly=True), using=alias)
    else:
        send_now(message, quietly=on_a_loop())


async def abroadcast(
    topic: str, event: str, payload: Any, *, private: bool = False, durable: bool = False
) -> None:
    """`broadcast` for async callers: waits without blocking the event loop."""
    message = make_broadcast(topic, event, payload, private)
    await (store_async(message) if durable else send(message))


def head() -> int:
    """The sequence number of the last event in the log; 0 for an empty log. One query.

    A change that was committed a moment ago may not have a number yet.
    """
    return read_head(connections[conf.current().DATABASE]).seq


def presence(topic: str, *, private: bool = False) -> dict[str, list[dict[str, Any]]]:
    """The presence of a topic (its name without `realtime:`): for each key its metas, in the order
    they came. One query.

    A private topic is separate from the public one of the same name. A `track` of a moment ago may
    not be stored yet.
    """
    return presence_store.online(conf.current().DATABASE, topic, private)


async def apresence(topic: str, *, private: bool = False) -> dict[str, list[dict[str, Any]]]:
    """`presence` for async callers."""
    return await sync_to_async(presence, thread_sensitive=True)(topic, private=private)


def make_broadcast(topic: str, event: str, payload: Any, private: bool) -> Broadcast:
    """A checked broadcast. Raises TypeError and ValueError as `broadcast` does."""
    for name, value, most_of_name in (
        ("topic", topic, LONGEST_TOPIC),
        ("event", event, LONGEST_EVENT),
    ):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        if not value:
            raise ValueError(f"{name} must not be empty")
        if len(value) > most_of_name:
            raise ValueError(f"{name} must have at most {most_of_name} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} must be valid Unicode, not {value!r}") from None
    if topic.startswith(PREFIX):
        raise ValueError(f"write the topic without {PREFIX!r}: {topic[len(PREFIX) :]!r}")
    binary = isinstance(payload, bytes | bytearray | memoryview)
    body = bytes(payload) if binary else _json(payload)
    most = conf.current().LIMITS.payload_bytes
    if most is not None and len(body) > most:
        raise ValueError(
            f"the payload has {len(body)} bytes, and REALTIME['LIMITS']['payload_bytes'] is {most}"
        )
    return Broadcast(topic, private, event, body, Encoding.BINARY if binary else Encoding.JSON)


def _json(payload: Any) -> bytes:
    try:
        return _encode(payload)
    except TypeError as error:
        raise TypeError(f"the payload cannot be written as JSON: {error}") from None


def _in_transaction() -> bool:
    return transaction.get_connection(conf.current().DATABASE).in_atomic_block
