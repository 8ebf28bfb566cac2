"""Broadcasts from Python: from any view, task or shell, in any process.

In a server process the hub sends. In any other process a background thread with its own event loop
sends, so that the caller needs none. Where no layer reaches the servers (another process, with an
in-memory layer), or threads are green and cannot have an event loop of their own, the broadcast
goes through the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from realtime import conf
from realtime.bus.bus import Bus
from realtime.bus.layers import reaches_others
from realtime.process.hub import running_hub
from realtime.topics.broadcast import Broadcast, in_batches
from realtime.topics.stored import store, store_async
from realtime.util.green_threads import green

logger = logging.getLogger("realtime.broadcast")

_SEND_SECONDS = 5.0


async def send(*messages: Broadcast) -> None:
    """Send broadcasts, in order. Raises ConnectionError or TimeoutError when they cannot be sent,
    and TooManyWaiting."""
    route = _route()
    if route is None:
        await store_async(*messages, kept=False)
    elif (future := route(messages)) is not None:
        await asyncio.wait_for(asyncio.wrap_future(future), _SEND_SECONDS)


def on_a_loop() -> bool:
    """Whether the caller runs on an event loop, which may not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# --- routes -------------------------------------------------------------------------------------

Future = Any  # concurrent.futures.Future[None]


def _route() -> Callable[[Sequence[Broadcast]], Future | None] | None:
    """The function that sends broadcasts from this process; None if they must go through the
    log."""
    hub = running_hub()
    if hub is not None:
        return hub.broadcast_from_any_thread
    if not green() and reaches_others(conf.current().CHANNEL_LAYER):
        return _sender().send
    return None


def send_now(message: Broadcast, *, quietly: bool) -> None:
    """`send` for callers that are not async. On an event loop it does not wait for the answer.

    Raises as `send` does, unless `quietly`: then a failure is logged.
    """
    try:
        route = _route()
        if route is None:
            store(message, kept=False)
        elif (future := route([message])) is not None and not on_a_loop():
            future.result(_SEND_SECONDS)
    except Exception as error:
        if not quietly:
            raise
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})


class _BackgroundSender:
    """A thread with its own event loop and layer. It ends with the process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._alias = conf.current().CHANNEL_LAYER
        self._loop = asyncio.new_event_loop()
        self._bus: Bus | None = None
        thread = threading.Thread(target=self._loop.run_forever, name="rowcast-sender", daemon=True)
        thread.start()

    @property
    def usable(self) -> bool:
        """False in a forked process, to which the parent's thread did not come along, and after a
        change of the settings."""
        return self._pid == os.getpid() and self._alias == conf.current().CHANNEL_LAYER

    def send(self, messages: Sequence[Broadcast]) -> Future:
        return asyncio.run_coroutine_threadsafe(self._publish(messages), self._loop)

    async def _publish(self, messages: Sequence[Broadcast]) -> None:
        if self._bus is None:
            self._bus = Bus(self._alias, lambda message: None)
        for batch in in_batches(messages):
            await self._bus.publish(batch)


_lock = threading.Lock()
_one: _BackgroundSender | None = None


def _sender() -> _BackgroundSender:
    global _one
    with _lock:
        if _one is None or not _one.usable:
            _one = _BackgroundSender()
        return _one
