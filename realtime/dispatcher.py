"""The dispatcher of one server process: log in, frames out.

Takes batches from the bus, proves that none is missing (and reads the log itself where one is),
asks who is concerned, encodes each frame once and hands it to every socket of its audience. On the
delivery path there is no database call and no thread hop. When the log says that permissions
changed, delivery pauses until every subscription is bound to what is true now, so that a revocation
at seq n holds for every event from n on (RT-D2).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from django.db import connections

from realtime import frames
from realtime.bus import Batch, Message
from realtime.casts import Cast
from realtime.counters import Counters
from realtime.effects import Position
from realtime.event import DatabaseEvent
from realtime.event_log import EventLog
from realtime.log_reader import DATABASE_ERRORS, LogReader
from realtime.plan import Watch
from realtime.pool import in_database_thread
from realtime.protocol import Version
from realtime.subscribers import Port, Subscribers
from realtime.subscription import Delivery
from realtime.topics import Topics
from realtime.wal import sequencer
from realtime.wal.sequencer import Head

logger = logging.getLogger("realtime.dispatcher")

_INBOX = 1_000
_SLICE_SECONDS = 0.005
_WATCH_SECONDS = 1.0
# While the bus brings nothing, the watch is what brings events.
_WATCH_ALONE_SECONDS = 0.25


class Carrier(Protocol):
    """What the dispatcher knows of the bus that feeds it."""

    @property
    def healthy(self) -> bool: ...
    def doubt(self) -> None: ...


class Dispatcher:
    """All methods are called on the event loop that `start` was called on."""

    def __init__(
        self,
        alias: str,
        ring_size: int,
        replay_limit: int | None,
        counters: Counters | None = None,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.log = EventLog(ring_size)
        self._alias = alias
        self._bus: Carrier | None = None
        self._reader = LogReader(alias, self.log)
        self.subscribers = Subscribers(self.log, self._reader, Watch(alias), replay_limit)
        self.topics: Topics[Port] = Topics()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(_INBOX)
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False

    @property
    def heals(self) -> int:
        """Times that entries were missing and were read from the log."""
        return self.counters.heals

    @property
    def reader(self) -> LogReader:
        """What reads the log here."""
        return self._reader

    @property
    def position(self) -> Position:
        """The last event this process has handed out."""
        return self.subscribers.position

    async def start(self, bus: Carrier | None = None) -> None:
        """Stand at the head of the log and begin. Raises what the database raises."""
        self._bus = bus
        head = await self._reader.head()
        await self.subscribers.start()
        self.log.start(head)
        self._tasks = [
            asyncio.create_task(self._run(), name="rowcast-dispatcher"),
            asyncio.create_task(self._watch(), name="rowcast-watch"),
        ]

    async def stop(self) -> None:
        """Stop taking messages; nothing is delivered any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def remove(self, port: Port) -> None:
        """Forget a channel altogether."""
        self.subscribers.remove(port)
        self.topics.leave(port)

    def receive(self, message: Message) -> None:
        """Take a message from the bus. When too many wait, the log is read instead."""
        try:
            self._inbox.put_nowait(message)
        except asyncio.QueueFull:
            self.counters.inbox_full += 1
            logger.info("inbox full: reading the log", extra={"action": "inbox_full"})

    # --- the log --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            message = await self._inbox.get()
            try:
                if isinstance(message, Cast):
                    self._cast(message)
                else:
                    await self._take(message)
                    self._note(None)
            except DATABASE_ERRORS as error:
                # The position stands; the watch finds the head ahead of it and brings us here.
                self._note(error)
            except Exception:
                logger.exception("a message failed", extra={"action": "message_failed"})

    async def _watch(self) -> None:
        # Catches what no later batch would reveal: the last one lost, or a layer that is down.
        before = self.position
        while True:
            await asyncio.sleep(_WATCH_SECONDS if self._fed else _WATCH_ALONE_SECONDS)
            now = self.position
            try:
                head = await self._reader.head()
                self.counters.watch_reads += 1
                if head.epoch == now.epoch and head.seq < now.seq:
                    head = await self._went_back(now)
            except DATABASE_ERRORS as error:
                self._note(error)
                continue
            except Exception:
                logger.exception("the watch failed", extra={"action": "watch_failed"})
                continue
            now = self.position
            behind = head.epoch != now.epoch or head.seq > now.seq
            if behind and (now == before or not self._fed):
                if self._bus is not None and self._fed:
                    self._bus.doubt()
                self.receive(Batch(head.epoch, head.seq, [], []))
            before = now

    @property
    def _fed(self) -> bool:
        return self._bus is None or self._bus.healthy

    async def _went_back(self, seen: Position) -> Head:
        # What was handed out is not in the log any more: a backup was restored, or a standby that
        # had not heard everything took over. Its numbers will be given again, to other changes.
        return await in_database_thread(
            lambda: sequencer.renew_epoch(connections[self._alias], Head(seen.epoch, seen.seq))
        )

    async def _take(self, batch: Batch) -> None:
        if batch.epoch != self.log.epoch:
            # Unless it is an old one that comes late.
            head = await self._reader.head()
            if head.epoch != self.log.epoch:
                await self._resync(head)
            return
        if batch.after > self.log.seq:
            self.counters.heals += 1
            await self._read_up_to(batch.after)
        self._reader.learn(batch.relations)
        rows = [row for row in batch.rows if row.seq > self.log.seq]
        if rows and rows[0].seq == self.log.seq + 1:
            await self._process(self._reader.events(rows))

    async def _read_up_to(self, upto: int) -> None:
        while self.log.seq < upto:
            events = await self._reader.from_table(self.log.seq, upto)
            if not events:
                # Pruned before we read it: that much is lost to everybody here.
                await self._resync(await self._reader.head())
                return
            self.counters.healed_events += len(events)
            await self._process(events)

    async def _resync(self, head: Head) -> None:
        self.counters.resyncs += 1
        await self.subscribers.rebind()
        # In one breath: no answer may name the new position to a channel that was not told.
        self.log.start(head)
        for port in self.subscribers.all():
            port.resync(self.position)

    async def _process(self, events: Sequence[DatabaseEvent]) -> None:
        rebound = False
        started = time.perf_counter()
        for event in events:
            if not rebound and self.subscribers.decides(event):
                # What the database says now includes every change of this batch.
                rebound = True
                await self.subscribers.rebind()
            self.log.append(event)
            self.counters.events += 1
            for delivery in self.subscribers.match(event):
                self._deliver(event, delivery)
            if time.perf_counter() - started > _SLICE_SECONDS:
                await asyncio.sleep(0)
                started = time.perf_counter()

    def _deliver(self, event: DatabaseEvent, delivery: Delivery[Port]) -> None:
        try:
            frame = frames.of_change(event, delivery)
        except Exception:
            # Whatever it is, it concerns this audience only, and this audience is told.
            logger.exception("a change cannot be encoded", extra={"action": "encoding_failed"})
            for port in tuple(delivery.audience.members):
                port.resync(self.position)
            return
        for port in delivery.audience.members:
            port.deliver(frame)

    def _cast(self, cast: Cast) -> None:
        made: dict[Version, str | bytes | None] = {}
        for port in self.topics.members(cast.topic, cast.private, cast.origin):
            if port.version not in made:
                made[port.version] = frames.of_cast(cast, port.version)
            frame = made[port.version]
            if frame is not None:
                port.deliver(frame)

    def _note(self, error: Exception | None) -> None:
        # One line per change of state, however long an outage lasts.
        if error is not None and not self._failing:
            logger.warning("the log cannot be read: %s", error, extra={"action": "log_failing"})
        elif error is None and self._failing:
            logger.info("the log can be read again", extra={"action": "log_works"})
        self._failing = error is not None
