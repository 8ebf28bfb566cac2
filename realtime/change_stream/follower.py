"""Follows the log in a process that is no server: a dispatcher of its own, fed by a tailer thread.

It is started by the first iterator of an event loop, shared by all of it, and ends with the last.
It needs no channel layer, takes no lead, and numbers the log only while nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import threading
import time
import weakref
from collections.abc import Callable
from itertools import count

from django.db import DEFAULT_DB_ALIAS, connections

from auth_rls import forks
from realtime import conf
from realtime.dispatcher.dispatcher import Dispatcher
from realtime.event_log.batch import Batch
from realtime.event_log.sequencer import Sequencer
from realtime.event_log.substitute import Substitute
from realtime.event_log.tailer import Tailer
from realtime.process.capture_monitor import CaptureMonitor
from realtime.process.connection_monitor import ConnectionMonitor
from realtime.process.hub import any_hub
from realtime.process.shutdown import StopSignal
from realtime.subscriptions.subscriber import Subscriber
from realtime.util.database_threads import close_connections, in_database_thread
from realtime.util.tasks import cancelled

logger = logging.getLogger("realtime.changes")

# Between two looks whether the tables that are followed are still captured.
_CAPTURE_SECONDS = 5.0
# How long the start waits for what was committed before it to get numbers.
_NUMBERING_SECONDS = 3.0
_STEP_SECONDS = 0.02
_STOP_SECONDS = 10.0
_DRAIN_SECONDS = 1.0


class Follower:
    """One per event loop; see `follow_here`."""

    def __init__(self) -> None:
        settings = conf.current()
        self._loop = asyncio.get_running_loop()
        self._alias = settings.DATABASE or DEFAULT_DB_ALIAS
        self._id = secrets.token_hex(8)
        self.dispatcher = Dispatcher(self._alias, settings.RING_SIZE, process=self._id)
        self.connection_monitor = ConnectionMonitor()
        self.dispatcher.users_changed = self.connection_monitor.users_changed
        self.dispatcher.disconnected = self.connection_monitor.end_of_user
        self._capture = CaptureMonitor(
            self._alias,
            lambda: self.dispatcher.subscriptions.channels.subscribed > 0,
            self.dispatcher.capture_changed,
        )
        self._tailer = Tailer(self._alias, settings.POLL_INTERVAL, self._publish, substitute=True)
        self._thread = threading.Thread(
            target=self._tailer.run, name="rowcast-follower", daemon=True
        )
        self._keeper: asyncio.Task[None] | None = None
        self._numbers = count(1)
        #: Called when the program is to stop, by what asked for it.
        self.on_drain: dict[object, Callable[[], None]] = {}
        self.draining = False
        self._signal = StopSignal(self._loop, self._drain, _DRAIN_SECONDS)
        self._starting = asyncio.Lock()
        self._started = False
        #: How many iterators use it.
        self.users = 0

    async def ready(self) -> None:
        """Start unless started. Raises what the database raises."""
        async with self._starting:
            if self._started:
                return
            await in_database_thread(self._number_what_waits)
            await self.dispatcher.start()
            self._thread.start()
            self._keeper = asyncio.create_task(self._keep(), name="rowcast-follower")
            if callable(signal.getsignal(signal.SIGTERM)):
                # A server that waits for responses to end would wait for streams without end. A
                # program that does nothing about the signal is ended by it as before.
                self._signal.install()
            self._started = True

    def new_id(self) -> str:
        """An id for a subscriber, unique over all processes."""
        return f"{self._id}-{next(self._numbers)}"

    def remove(self, subscriber: Subscriber) -> None:
        """Deliver nothing more to a subscriber."""
        self.dispatcher.remove(subscriber)
        self.connection_monitor.discard(subscriber)

    async def _drain(self) -> None:
        self.draining = True
        ends, self.on_drain = self.on_drain, {}
        for end in ends.values():
            end()

    async def stop(self) -> None:
        """Stop everything that was started."""
        self._signal.uninstall()
        if self._keeper is not None:
            await cancelled([self._keeper])
        await self.connection_monitor.stop()
        await self.dispatcher.stop()
        if self._started:
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)
        self._started = False

    async def _keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(_CAPTURE_SECONDS)
                await self._capture.look()
        finally:
            # Also where the loop ends without a stop, which cancels its tasks.
            self._tailer.stop()

    def _number_what_waits(self) -> None:
        """What was committed before the start is no news, so it gets its numbers before: by the
        leader, or here where nobody leads."""
        connection = connections[self._alias]
        sequencer, substitute = Sequencer(), Substitute()
        deadline = time.monotonic() + _NUMBERING_SECONDS
        while time.monotonic() < deadline:
            look = sequencer.look(connection)
            if not look.waiting:
                return
            if substitute.consider(connection, look.lease, look.head.seq, waiting=True):
                sequencer.number(connection)
            else:
                time.sleep(_STEP_SECONDS)

    def _publish(self, batch: Batch) -> None:
        # In the tailer's thread.
        try:
            self._loop.call_soon_threadsafe(self.dispatcher.receive, batch)
        except RuntimeError:  # the loop has ended
            self._tailer.stop()


_followers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Follower] = (
    weakref.WeakKeyDictionary()
)
# How many followers of this process run, and the lock of the number: loops are in threads.
_running = 0
_lock = threading.Lock()


def _begin_anew() -> None:
    global _running, _lock
    _running, _lock = 0, threading.Lock()


forks.in_child(_begin_anew)


def _count(by: int) -> int:
    global _running
    with _lock:
        _running += by
        return _running


async def follow_here() -> Follower:
    """The follower of the running event loop, started; `let_go` of it afterwards. Raises what the
    database raises."""
    loop = asyncio.get_running_loop()
    found = _followers.get(loop)
    if found is None:
        found = _followers[loop] = Follower()
        _count(+1)
    found.users += 1
    try:
        await found.ready()
    except BaseException:
        let_go(found)
        raise
    return found


def let_go(follower: Follower) -> asyncio.Task[None] | None:
    """An iterator uses the follower no longer. The last one ends it: returns the task that does."""
    follower.users -= 1
    if follower.users:
        return None
    loop = asyncio.get_running_loop()
    if _followers.get(loop) is follower:
        del _followers[loop]
    return loop.create_task(_end(follower), name="rowcast-follower-stop")


async def _end(follower: Follower) -> None:
    try:
        await follower.stop()
    finally:
        last = _count(-1) == 0
    if last and not any_hub():
        # A process that is no server keeps no connection for what has ended.
        await close_connections()
