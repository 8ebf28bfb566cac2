"""The hub: the dispatcher, the end of the bus, the embedded tailer and the other parts that a
server process has once, wired together.

It is started by the first socket, because not every ASGI server notifies an application of its
start; where code or webhooks wait for changes by `early_start`. A start that fails (no database
yet) is tried again by the next join.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import count

from django.db import DEFAULT_DB_ALIAS, connections

from auth_rls.subjects.subject import SERVICE_ROLE, Subject
from realtime import conf
from realtime.bus.bus import Bus
from realtime.bus.layers import reaches_others
from realtime.delivery.outbox import Outbox
from realtime.dispatcher.dispatcher import Dispatcher
from realtime.event_log import sequencer
from realtime.event_log.batch import Batch
from realtime.event_log.position import Position
from realtime.event_log.tailer import Tailer
from realtime.handling import registry as handlers
from realtime.handling.runner import Runner
from realtime.process import heartbeat
from realtime.process.broadcast_sender import ServerSender
from realtime.process.capture_monitor import CaptureMonitor
from realtime.process.connection_monitor import ConnectionMonitor, Monitored
from realtime.process.loop_monitor import LoopMonitor
from realtime.process.numbering_monitor import NumberingMonitor
from realtime.process.registry import Report
from realtime.process.remote_reader import RemoteReader
from realtime.process.shutdown import StopSignal
from realtime.session.quotas import QuotaChain, Quotas, Rates
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.subscriber import Subscriber
from realtime.topics.broadcast import PassingBatch
from realtime.topics.passing import PassingReader
from realtime.topics.presence.changes import PresenceEnded
from realtime.topics.presence.writer import PresenceWriter
from realtime.util import full_collections
from realtime.util.counters import Counters
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.webhooks.sending import Sending

logger = logging.getLogger("realtime.hub")

_PUBLISH_SECONDS = 10.0
# Between two looks at broadcasts of other processes, where no tailer looks for this one.
_PASSING_SECONDS = 0.25
_STOP_SECONDS = 10.0
# For attempts of handlers to end.
_HANDLERS_SECONDS = 3.0

# A graceful stop. Clients reconnect about a second after they were closed, so the closes are
# spread; otherwise the next server would get all of them at once. A supervisor kills a process
# after ten seconds.
_SPREAD_SECONDS = 3.0
_SECONDS_PER_SOCKET = 0.01
_CLOSE_SECONDS = 3.0
_DRAIN_SECONDS = 9.0
_LOOK_SECONDS = 0.02

# Fewer are in programs of another purpose, such as tests, whose collector is left alone.
MANY_CONNECTIONS = 50


class Hub:
    """One per event loop, which in a server is one per process. See `hub()`."""

    def __init__(self) -> None:
        settings = conf.current()
        self.id = secrets.token_hex(8)
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._alias = settings.DATABASE or DEFAULT_DB_ALIAS
        self._settings = settings
        #: Whether it numbers the log itself. May be changed before it starts.
        self.embedded = settings.embedded
        self.counters = Counters()
        self.dispatcher = Dispatcher(
            self._alias,
            settings.RING_SIZE,
            self.counters,
            process=self.id,
            bounds=ReplayBounds(settings.LIMITS.replay_events, settings.LIMITS.snapshot_rows),
        )
        self.bus = Bus(
            settings.CHANNEL_LAYER,
            self.dispatcher.receive,
            self.counters,
            lambda: self.dispatcher.busy,
        )
        #: Sends the broadcasts of this process.
        self.broadcasts = ServerSender(self.bus, self.dispatcher.receive, self.counters)
        self._shares = reaches_others(settings.CHANNEL_LAYER)
        #: Broadcasts of processes that no layer connects with this one.
        self._passing = PassingReader(self._publish, shared=self._shares)
        # Long ranges of the log are read by a worker where one runs.
        self.remote = RemoteReader(self.dispatcher.reader, self._alias, settings.CHANNEL_LAYER)
        self.dispatcher.reader.deep = self.remote.from_table
        self.draining = False
        #: The outbox of each open socket, and what starts its close.
        self.sockets: dict[Outbox, Callable[[], None]] = {}
        #: Called when the hub drains or stops, by what asked for it.
        self.on_drain: dict[object, Callable[[], None]] = {}
        self.loop_monitor = LoopMonitor(self._loop, self.counters, self._fullest)
        self.connections = 0
        self.addresses: Counter[str] = Counter()
        self.quotas = Quotas(Rates.of(settings.LIMITS))
        self.connection_monitor = ConnectionMonitor()
        self.dispatcher.users_changed = self.connection_monitor.users_changed
        self.dispatcher.disconnected = self.connection_monitor.end_of_user
        self._user_start: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._starting = asyncio.Lock()
        self._started = False
        self._tailer: Tailer | None = None
        self._thread: threading.Thread | None = None
        self._handlers: Runner | None = None
        self._webhooks: Sending | None = None
        self.presence = PresenceWriter(
            self._alias,
            self.id,
            self.dispatcher.presence,
            settings.LIMITS.members_per_topic,
            self.bus.publish,
        )
        #: Starts the hub without a socket.
        self.early: asyncio.Task[None] | None = None
        self._present: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.numbering = NumberingMonitor(self._alias)
        #: Whether something comes of the tables that are subscribed to.
        self.capture = CaptureMonitor(
            self._alias,
            lambda: self.dispatcher.subscriptions.channels.subscribed > 0,
            self.dispatcher.capture_changed,
        )
        #: Of the row of this process, from the start on.
        self.heartbeat_timing = heartbeat.USUAL
        self._signal = StopSignal(self._loop, self.drain, _DRAIN_SECONDS)
        self._signal.install()

    def enter(self, address: str, total: int | None, per_address: int | None) -> str | None:
        """Count a connection. Returns the limit that it would exceed, in which case it is not
        counted; else None.

        From `MANY_CONNECTIONS` on, full garbage collections that take long are limited.
        """
        if total is not None and self.connections >= total:
            return "connections/process"
        if address and per_address is not None and self.addresses[address] >= per_address:
            return "connections_per_address/address"
        self.connections += 1
        self.addresses[address] += 1
        if self.connections == MANY_CONNECTIONS:
            full_collections.limit()
        return None

    def leave(self, address: str) -> None:
        """Count a connection no longer."""
        self.connections -= 1
        self.addresses[address] -= 1
        if not self.addresses[address]:
            del self.addresses[address]

    def monitor(self, owner: object, monitored: Monitored) -> None:
        """Monitor a connection. Starts the hub if the connection has a user, because the log
        carries changes of users."""
        self.connection_monitor.put(owner, monitored)
        if monitored.subject.user_id is not None and not self._started and self._user_start is None:
            self._user_start = asyncio.create_task(self._start_for_users(), name="rowcast-start")

    async def _start_for_users(self) -> None:
        try:
            await self.ready()
            # Users may have changed since they were read at their handshakes.
            self.connection_monitor.users_changed(None)
        except DATABASE_ERRORS as error:
            logger.debug("not started: %s", error, extra={"action": "start_failed"})
        finally:
            self._user_start = None

    def quotas_of(self, subject: Subject, now: float) -> QuotaChain | None:
        """The quotas that a subject's connections and channels share. None for a subject without a
        user id, and for the service role."""
        if subject.role == SERVICE_ROLE or subject.user_id is None:
            return None
        return QuotaChain(self.quotas.subject(str(subject.user_id), now))

    def _fullest(self) -> int:
        return max((outbox.size for outbox in self.sockets), default=0)

    @property
    def position(self) -> Position:
        """The position of the last event that this process has delivered."""
        return self.dispatcher.position

    @property
    def tailer(self) -> Tailer | None:
        """The embedded tailer; None without one."""
        return self._tailer

    def new_id(self) -> str:
        """An id for a channel, unique over all processes."""
        return f"{self.id}-{next(self._numbers)}"

    async def ready(self) -> None:
        """Start unless started. Raises what the database raises."""
        async with self._starting:
            if self._started:
                return
            # The bus first: batches that come while the head is read wait in the inbox.
            await self.bus.join()
            await in_database_thread(self._begin_log)
            await self.dispatcher.start(self.bus)
            self.broadcasts.start()
            if self.embedded:
                if handlers.are_known():
                    self._handlers = Runner(self._alias, self._settings.POLL_INTERVAL)
                    self._handlers.start()
                self._webhooks = Sending(self._alias)
                self._webhooks.start()
                self._start_tailer()
            elif not self._shares:
                # The tailer runs elsewhere, and nothing that it publishes comes here.
                work = self._look_at_passing()
                self._looking = asyncio.create_task(work, name="rowcast-passing")
            self._present = asyncio.create_task(self.presence.run(), name="rowcast-present")
            self._keeper = asyncio.create_task(
                heartbeat.keep(
                    self.id,
                    self._report,
                    self.presence.registered,
                    (self.numbering, self.capture),
                    self.heartbeat_timing,
                ),
                name="rowcast-row",
            )
            self.loop_monitor.start()
            self._started = True

    def _begin_log(self) -> None:
        if not self._shares:
            self._passing.begin(connections[self._alias])
        if not self.embedded:
            return
        # Waiting entries were committed before any channel here subscribed. They are numbered now,
        # so that the first subscription begins after them and does not get them as new changes.
        while sequencer.number(connections[self._alias]):
            continue

    def _report(self) -> Report:
        return Report(
            position=self.position.seq,
            connections=self.connections,
            channels=self.dispatcher.topics.listeners,
            subscriptions=self.dispatcher.subscriptions.channels.subscribed,
            tailing=self._tailer is not None,
            leading=self._tailer is not None and self._tailer.leading,
            counters=self.counters.flat(),
        )

    async def drain(self) -> None:
        """Refuse new sockets, close the open ones with 1012 one after another, and stop."""
        self.draining = True
        self._call_on_drain()
        closes = list(self.sockets.values())
        logger.info("stopping: %s sockets to close", len(closes), extra={"action": "draining"})
        spread = min(_SPREAD_SECONDS, len(closes) * _SECONDS_PER_SOCKET)
        started = self._loop.time()
        for number, close in enumerate(closes):
            await asyncio.sleep(started + spread * number / len(closes) - self._loop.time())
            close()
        deadline = self._loop.time() + _CLOSE_SECONDS
        while self.sockets and self._loop.time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        await self.stop()

    async def stop(self) -> None:
        """Stop everything that was started."""
        self._call_on_drain()
        self._signal.uninstall()
        self.loop_monitor.stop()
        await self.connection_monitor.stop()
        for start in (self._user_start, self.early):
            if start is not None:
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)
        # The row last: its presence rows are deleted with it.
        for task in (self._looking, self._present, self._keeper):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._keeper is not None:
            with contextlib.suppress(Exception):  # others find out by themselves
                await self.bus.publish(PresenceEnded(self.id))
        if self._handlers is not None:
            await asyncio.to_thread(self._handlers.stop, _HANDLERS_SECONDS)
        if self._webhooks is not None:
            await asyncio.to_thread(self._webhooks.stop, _HANDLERS_SECONDS)
        if self._tailer is not None and self._thread is not None:
            self._tailer.stop()
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)
        await self.broadcasts.stop()
        await self.dispatcher.stop()
        await self.remote.close()
        await self.bus.leave()
        self._started = False

    def _call_on_drain(self) -> None:
        ends, self.on_drain = self.on_drain, {}
        for end in ends.values():
            end()

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a channel from subscriptions, topics and presence."""
        self.dispatcher.remove(subscriber)
        self.connection_monitor.discard(subscriber)
        self.presence.untrack(subscriber.id)

    def _start_tailer(self) -> None:
        self._tailer = Tailer(
            self._alias,
            self._settings.POLL_INTERVAL,
            self._publish,
            passing=self._passing.look,
        )
        # A daemon thread: numbering is a transaction, so a server need not wait for it to end.
        self._thread = threading.Thread(target=self._tailer.run, name="rowcast-tailer", daemon=True)
        self._thread.start()

    async def _look_at_passing(self) -> None:
        while True:
            with contextlib.suppress(*DATABASE_ERRORS):  # which the monitor of the head logs
                await in_database_thread(
                    lambda: self._passing.look(connections[self._alias], False)
                )
            await asyncio.sleep(_PASSING_SECONDS)

    def _publish(self, batch: Batch | PassingBatch) -> None:
        if self._handlers is not None:
            self._handlers.wake()
        # Waits, so that batches keep their order and a failure is noticed.
        future = asyncio.run_coroutine_threadsafe(self.bus.publish(batch), self._loop)
        future.result(_PUBLISH_SECONDS)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()


def hub() -> Hub:
    """The hub of the running event loop. Raises RuntimeError without one."""
    loop = asyncio.get_running_loop()
    found = _hubs.get(loop)
    if found is None:
        found = _hubs[loop] = Hub()
    return found


def hub_here() -> Hub | None:
    """The hub of the running event loop, if it has one already."""
    return _hubs.get(asyncio.get_running_loop())


def any_hub() -> bool:
    """Whether an event loop of this process has a hub."""
    return bool(_hubs)


async def close_hub() -> None:
    """Stop and forget the hub of the running loop, if it has one."""
    found = _hubs.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.stop()
