"""Broadcasts from Python: from any view, task or shell, in any process.

In a server process the hub sends. Elsewhere a thread of this process's own does, on an event loop
of its own, so that it makes no difference whether the caller has one. Where there is no layer that
reaches the servers (the embedded shape, and this is another process) the log carries the broadcast.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import transaction

from realtime import conf
from realtime.bus import Bus
from realtime.casts import Cast, Casts
from realtime.effects import PREFIX
from realtime.hub import running_hub
from realtime.layers import reaches_others
from realtime.models import Message
from realtime.protocol import Encoding

logger = logging.getLogger("realtime.broadcast")

_encode = msgspec.json.Encoder(decimal_format="number").encode
_SEND_SECONDS = 5.0


def broadcast(
    topic: str, event: str, payload: Any, *, private: bool = False, durable: bool = False
) -> None:
    """Send an event to everybody who listens to a topic.

    `topic` is its name without `realtime:`; a `private` topic is another room than the public one
    of the same name. `payload` is anything that is JSON (dates, UUIDs, decimals and dataclasses
    become what msgspec makes of them), or `bytes`. Inside a transaction it is sent on commit; then,
    and from an event loop, what goes wrong is logged and not raised.

    `durable`: written to the log in the same transaction, so it is ordered with the changes of that
    transaction, never sent for a rollback, and can be replayed (if private) until it is pruned.

    Raises TypeError for a payload that is no JSON, ValueError for a topic or an event that is
    empty or a payload over LIMITS["payload_bytes"], and ConnectionError or TimeoutError when the
    channel layer does not answer.
    """
    cast = make_cast(topic, event, payload, private)
    if durable:
        store(cast)
    elif _in_transaction():
        alias = conf.current().DATABASE
        transaction.on_commit(lambda: _send(cast, quietly=True), using=alias)
    else:
        _send(cast, quietly=_on_a_loop())


async def abroadcast(
    topic: str, event: str, payload: Any, *, private: bool = False, durable: bool = False
) -> None:
    """`broadcast` for async callers: waits without blocking the event loop."""
    cast = make_cast(topic, event, payload, private)
    await (store_async(cast) if durable else send(cast))


async def send(cast: Cast) -> None:
    """Send one broadcast. Raises ConnectionError, TimeoutError or RuntimeError when it cannot be
    sent."""
    way = _way()
    if way is None:
        await store_async(cast, kept=False)
    elif (future := way(cast)) is not None:
        await asyncio.wait_for(asyncio.wrap_future(future), _SEND_SECONDS)


async def store_async(cast: Cast, *, kept: bool = True) -> None:
    """`store` for async callers, in the thread whose transaction they may have open."""
    await sync_to_async(store, thread_sensitive=True)(cast, kept=kept)


def make_cast(topic: str, event: str, payload: Any, private: bool) -> Cast:
    """A broadcast that may be sent. Raises as `broadcast` does."""
    for name, value in (("topic", topic), ("event", event)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        if not value:
            raise ValueError(f"{name} must not be empty")
    if topic.startswith(PREFIX):
        raise ValueError(f"write the topic without {PREFIX!r}: {topic[len(PREFIX) :]!r}")
    binary = isinstance(payload, bytes | bytearray | memoryview)
    body = bytes(payload) if binary else _json(payload)
    most = conf.current().LIMITS.payload_bytes
    if most is not None and len(body) > most:
        raise ValueError(
            f"the payload has {len(body)} bytes, and REALTIME['LIMITS']['payload_bytes'] is {most}"
        )
    return Cast(topic, private, event, body, Encoding.BINARY if binary else Encoding.JSON)


def store(cast: Cast, *, kept: bool = True) -> Message:
    """Write a broadcast to the log, in the transaction that is open if there is one.

    With `kept` False it only passes through: no row stays. Raises what the database raises.
    """
    alias = conf.current().DATABASE
    binary = cast.encoding == Encoding.BINARY
    named = {"id": cast.id} if cast.id else {}
    message = Message(
        **named,
        topic=cast.topic,
        private=cast.private,
        event=cast.event or "",
        payload=None if binary else msgspec.json.decode(cast.payload),
        data=cast.payload if binary else None,
        kept=kept,
    )
    with transaction.atomic(using=alias):
        message.save(using=alias, force_insert=True)
        if not kept:
            Message.objects.using(alias).filter(pk=message.pk).delete()
    return message


def _json(payload: Any) -> bytes:
    try:
        return _encode(payload)
    except TypeError as error:
        raise TypeError(f"the payload cannot be written as JSON: {error}") from None


def _in_transaction() -> bool:
    return transaction.get_connection(conf.current().DATABASE).in_atomic_block


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# --- the way out --------------------------------------------------------------------------------

Future = Any  # concurrent.futures.Future[None]


def _way() -> Callable[[Cast], Future | None] | None:
    """How a broadcast leaves this process; None where only the log does."""
    hub = running_hub()
    if hub is not None:
        return hub.cast_from_anywhere
    if reaches_others(conf.current().CHANNEL_LAYER):
        return _postman().send
    return None


def _send(cast: Cast, *, quietly: bool) -> None:
    try:
        way = _way()
        if way is None:
            store(cast, kept=False)
        elif (future := way(cast)) is not None and not _on_a_loop():
            future.result(_SEND_SECONDS)
    except Exception as error:
        if not quietly:
            raise
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})


class _Postman:
    """A thread with an event loop and a layer of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.alias = conf.current().CHANNEL_LAYER
        self._loop = asyncio.new_event_loop()
        self._bus: Bus | None = None
        thread = threading.Thread(
            target=self._loop.run_forever, name="rowcast-postman", daemon=True
        )
        thread.start()

    def send(self, cast: Cast) -> Future:
        return asyncio.run_coroutine_threadsafe(self._publish(cast), self._loop)

    async def _publish(self, cast: Cast) -> None:
        if self._bus is None:
            self._bus = Bus(self.alias, lambda message: None)
        await self._bus.publish(Casts([cast]))

    def stop(self) -> None:
        async def leave() -> None:
            if self._bus is not None:
                await self._bus.leave()

        asyncio.run_coroutine_threadsafe(leave(), self._loop).result(_SEND_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)


_lock = threading.Lock()
_one: _Postman | None = None


def _postman() -> _Postman:
    global _one
    with _lock:
        # A thread does not live on in a process that was forked.
        if _one is None or _one.pid != os.getpid() or _one.alias != conf.current().CHANNEL_LAYER:
            _one = _Postman()
        return _one


def close_postman() -> None:
    """Let go of the layer, at a test's end."""
    global _one
    with _lock:
        if _one is not None and _one.pid == os.getpid():
            _one.stop()
        _one = None
