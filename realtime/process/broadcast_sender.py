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

from realtime import conf
from realtime.bus.bus import Bus
from realtime.bus.layers import reaches_others
from realtime.process.hub import running_hub
from realtime.topics.broadcast import Broadcast, BroadcastBatch
from realtime.topics.stored import store, store_async

logger = logging.getLogger("realtime.broadcast")

_SEND_SECONDS = 5.0


async def send(cast: Broadcast) -> None:
    """Send one broadcast. Raises ConnectionError, TimeoutError or RuntimeError when it cannot be
    sent."""
    way = _route()
    if way is None:
        await store_async(cast, kept=False)
    elif (future := way(cast)) is not None:
        await asyncio.wait_for(asyncio.wrap_future(future), _SEND_SECONDS)


def on_a_loop() -> bool:
    """Whether the caller runs on an event loop, which may not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# --- the way out --------------------------------------------------------------------------------

Future = Any  # concurrent.futures.Future[None]


def _route() -> Callable[[Broadcast], Future | None] | None:
    """How a broadcast leaves this process; None where only the log does."""
    hub = running_hub()
    if hub is not None:
        return hub.cast_from_anywhere
    if reaches_others(conf.current().CHANNEL_LAYER):
        return _postman().send
    return None


def send_now(cast: Broadcast, *, quietly: bool) -> None:
    """`send` for callers that are not async. On an event loop it does not wait for the answer.

    Raises as `send` does, unless `quietly`: then a failure is logged.
    """
    try:
        way = _route()
        if way is None:
            store(cast, kept=False)
        elif (future := way(cast)) is not None and not on_a_loop():
            future.result(_SEND_SECONDS)
    except Exception as error:
        if not quietly:
            raise
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})


class _BackgroundSender:
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

    def send(self, cast: Broadcast) -> Future:
        return asyncio.run_coroutine_threadsafe(self._publish(cast), self._loop)

    async def _publish(self, cast: Broadcast) -> None:
        if self._bus is None:
            self._bus = Bus(self.alias, lambda message: None)
        await self._bus.publish(BroadcastBatch([cast]))

    def stop(self) -> None:
        async def leave() -> None:
            if self._bus is not None:
                await self._bus.leave()

        asyncio.run_coroutine_threadsafe(leave(), self._loop).result(_SEND_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)


_lock = threading.Lock()
_one: _BackgroundSender | None = None


def _postman() -> _BackgroundSender:
    global _one
    with _lock:
        # A thread does not live on in a process that was forked.
        if _one is None or _one.pid != os.getpid() or _one.alias != conf.current().CHANNEL_LAYER:
            _one = _BackgroundSender()
        return _one


def close_postman() -> None:
    """Let go of the layer, at a test's end."""
    global _one
    with _lock:
        if _one is not None and _one.pid == os.getpid():
            _one.stop()
        _one = None
