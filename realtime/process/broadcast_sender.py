"""Broadcasts on their way out: from any view, task or shell, in any process.

A server process has a `ServerSender`, which its hub starts and which also sends what clients
broadcast. In any other process a background thread with its own event loop sends, so that the
caller needs none. Where no layer reaches the servers (another process, with an in-memory layer), or
threads are green and cannot have an event loop of their own, the broadcast goes through a table.

`realtime.dispatcher.dispatcher` takes broadcasts from the bus, and gives them to sockets.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from auth_rls import forks
from realtime import conf
from realtime.bus.bus import Bus, LayerDown
from realtime.bus.layers import reaches_others
from realtime.topics.broadcast import Broadcast, BroadcastBatch, in_batches
from realtime.topics.passing import put, put_async
from realtime.util.counters import Counters
from realtime.util.fair_queue import FairQueue
from realtime.util.green_threads import green

logger = logging.getLogger("realtime.broadcast")

_SEND_SECONDS = 5.0
# Broadcasts of a server that wait for the bus: in all, and of one topic.
_MOST_WAITING = 10_000
_MOST_OF_TOPIC = 1_000


class TooManyWaiting(RuntimeError):
    """Too many broadcasts of a topic wait to be sent."""


async def send(*messages: Broadcast) -> None:
    """Send broadcasts, in order. Raises ConnectionError or TimeoutError when they cannot be sent,
    and TooManyWaiting."""
    route = _route()
    if route is None:
        await put_async(*messages)
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
    table."""
    server = server_sender()
    if server is not None:
        return server.put_from_any_thread
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
            put(message)
        elif (future := route([message])) is not None and not on_a_loop():
            future.result(_SEND_SECONDS)
    except Exception as error:
        if not quietly:
            raise
        logger.warning("broadcast not sent: %s", error, extra={"action": "broadcast_not_sent"})


# --- in a server --------------------------------------------------------------------------------


class ServerSender:
    """Sends the broadcasts of a server process, those of its clients among them. Made on the event
    loop that it sends on; `put` and the methods that start and stop it are called there."""

    def __init__(
        self, bus: Bus, deliver_here: Callable[[BroadcastBatch], None], counters: Counters
    ) -> None:
        self._bus = bus
        self._deliver_here = deliver_here
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._waiting: FairQueue[Broadcast] = FairQueue(_MOST_WAITING, _MOST_OF_TOPIC)
        self._some_wait = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._task is not None and not self._loop.is_closed()

    def start(self) -> None:
        """Begin to send. From here on `send` takes this way."""
        self._task = asyncio.create_task(self._send_waiting(), name="rowcast-broadcasts")
        _servers.add(self)

    async def stop(self) -> None:
        """Stop sending. What waits is not sent."""
        _servers.discard(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def put(self, message: Broadcast) -> bool:
        """Broadcast, in the order of the calls within a topic. False when too many broadcasts of
        the topic wait already."""
        if not self._waiting.put(message.topic_key, message):
            self._counters.casts_refused += 1
            return False
        self._some_wait.set()
        self._counters.broadcasts_sent += 1
        return True

    def put_from_any_thread(self, messages: Sequence[Broadcast]) -> None:
        """`put` several from any thread of this process.

        On the loop it raises TooManyWaiting at the first for which the queue is full.
        """
        if threading.get_ident() != self._thread_id:
            for message in messages:
                self._loop.call_soon_threadsafe(self.put, message)
            return
        for message in messages:
            if not self.put(message):
                raise TooManyWaiting(f"too many broadcasts to {message.topic!r} wait to be sent")

    async def _send_waiting(self) -> None:
        while True:
            if not self._waiting:
                self._some_wait.clear()
                await self._some_wait.wait()
            batch = next(in_batches(self._take_waiting()))
            try:
                await self._bus.publish(batch)
            except LayerDown:
                # It was not sent, but listeners of this process can still receive it.
                self._deliver_here(batch)
            except Exception as error:
                # The bus has logged the outage; broadcasts are best effort.
                logger.debug("broadcast lost: %s", error, extra={"action": "cast_lost"})

    def _take_waiting(self) -> Iterator[Broadcast]:
        while self._waiting:
            yield self._waiting.pop()


_servers: weakref.WeakSet[ServerSender] = weakref.WeakSet()


def server_sender() -> ServerSender | None:
    """The running sender of this process if it is a server, from any thread; else None."""
    return next((found for found in tuple(_servers) if found.running), None)


# --- in any other process -----------------------------------------------------------------------


class _BackgroundSender:
    """A thread with its own event loop and layer. It ends with the process."""

    def __init__(self) -> None:
        self._alias = conf.current().CHANNEL_LAYER
        self._loop = asyncio.new_event_loop()
        self._bus: Bus | None = None
        thread = threading.Thread(target=self._loop.run_forever, name="rowcast-sender", daemon=True)
        thread.start()

    @property
    def usable(self) -> bool:
        """False after a change of the settings."""
        return self._alias == conf.current().CHANNEL_LAYER

    def send(self, messages: Sequence[Broadcast]) -> Future:
        return asyncio.run_coroutine_threadsafe(self._publish(messages), self._loop)

    async def _publish(self, messages: Sequence[Broadcast]) -> None:
        if self._bus is None:
            self._bus = Bus(self._alias, lambda message: None)
        for batch in in_batches(messages):
            await self._bus.publish(batch)


_lock = threading.Lock()
_one: _BackgroundSender | None = None
# Senders of parent processes. They are kept, because to close their connections would be to close
# the parent's, which shares the sockets and the selector.
_of_parents: list[_BackgroundSender | ServerSender] = []


def _begin_anew() -> None:
    global _lock, _one
    _lock = threading.Lock()
    _of_parents.extend(_servers)
    _servers.clear()
    if _one is not None:
        _of_parents.append(_one)
        _one = None


forks.in_child(_begin_anew)


def _sender() -> _BackgroundSender:
    global _one
    with _lock:
        if _one is None or not _one.usable:
            _one = _BackgroundSender()
        return _one
