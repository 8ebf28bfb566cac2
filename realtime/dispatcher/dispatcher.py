"""The dispatcher of one server process: log in, frames out.

Takes batches from the bus, proves that none is missing (and reads the log itself where one is),
asks who is concerned, encodes each frame once and hands it to every socket of its audience. On the
delivery path there is no database call and no thread hop. A change of a row behind a `select` moves
the sets that it is in. When the log says that other permissions changed, delivery pauses until the
subscriptions this concerns are bound to what is true now. So a revocation at seq n holds for every
event from n on (RT-D2).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from django.db import connections

from realtime.bus.bus import Message
from realtime.delivery.frame import SharedFrame
from realtime.event_log.batch import Batch
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.models import Message as StoredMessage
from realtime.models import PresenceMember
from realtime.subscriptions import frames
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.index import Delivery
from realtime.subscriptions.manager import SubscriptionManager
from realtime.subscriptions.subscriber import Subscriber
from realtime.topics.broadcast import Broadcast, BroadcastBatch
from realtime.topics.frames import of_broadcast
from realtime.topics.listeners import TopicListeners
from realtime.topics.presence.tracker import PresenceTracker
from realtime.topics.stored import broadcast_of
from realtime.util.counters import Counters
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.fair_queue import FairQueue
from realtime.util.time_slice import SLICE_SECONDS, TimeSlice
from realtime.wal.head import Head, renew_epoch

logger = logging.getLogger("realtime.dispatcher")

_INBOX = 1_000
# Broadcasts that wait to be delivered: in all, and of one topic.
_CASTS = 10_000
_CASTS_OF_TOPIC = 1_000
# Rows that wait in it. A large transaction waits in the log, not in the memory of every process.
_INBOX_ROWS = 20_000
_WATCH_SECONDS = 1.0
# While the bus brings nothing, the watch is what brings events.
_WATCH_ALONE_SECONDS = 0.25


class Source(Protocol):
    """What the dispatcher knows of the bus that feeds it."""

    @property
    def healthy(self) -> bool: ...
    def check_soon(self) -> None: ...


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
        self._bus: Source | None = None
        self._reader = LogReader(alias, self.log)
        self.subscribers = SubscriptionManager(
            self.log, self._reader, AccessWatch(alias), replay_limit, self.counters
        )
        self.topics: TopicListeners[Subscriber] = TopicListeners()
        self.presence = PresenceTracker(alias)
        # Tables by which processes tell each other things; as rows they are delivered to nobody.
        self._inner: dict[str, Callable[[DatabaseEvent], None]] = {
            StoredMessage._meta.db_table: self._message,
            PresenceMember._meta.db_table: self._member,
        }
        self._inbox: deque[Batch] = deque()
        self._casts: FairQueue[Broadcast] = FairQueue(_CASTS, _CASTS_OF_TOPIC)
        self._news = asyncio.Event()
        self._waiting_rows = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False
        self._breath = TimeSlice()

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

    @property
    def busy(self) -> bool:
        """Whether broadcasts wait that were received."""
        return bool(self._casts)

    async def start(self, bus: Source | None = None) -> None:
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
        await self.presence.stop()
        self._tasks = []

    def remove(self, port: Subscriber) -> None:
        """Forget a channel altogether."""
        self.subscribers.remove(port)
        self.topics.leave(port)
        self.presence.leave(port)

    def receive(self, message: Message) -> None:
        """Take a message from the bus. When too much waits, the log is read instead; broadcasts
        that find too many of their topic are lost."""
        if isinstance(message, BroadcastBatch):
            for cast in message.casts:
                if not self.topics.has_listeners(cast.topic, cast.private):
                    continue
                if not self._casts.put(cast.topic_key, cast):
                    self.counters.casts_refused += 1
            self._news.set()
            return
        if message.rows and self._waiting_rows + len(message.rows) > _INBOX_ROWS:
            # Says how far the log is, without what it holds.
            message = Batch(message.epoch, message.rows[-1].seq, [], [])
            self.counters.inbox_full += 1
        if len(self._inbox) >= _INBOX:
            self.counters.inbox_full += 1
            logger.info("inbox full: reading the log", extra={"action": "inbox_full"})
        else:
            self._inbox.append(message)
            self._waiting_rows += len(message.rows)
        self._news.set()

    # --- the log --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            if not self._inbox and not self._casts:
                self._news.clear()
                await self._news.wait()
            try:
                if self._inbox:
                    batch = self._inbox.popleft()
                    self._waiting_rows -= len(batch.rows)
                    await self._take(batch)
                    self._note(None)
                # In turns: neither a flood of changes nor one of broadcasts holds up the other.
                self._cast_some()
            except DATABASE_ERRORS as error:
                # The position stands; the watch finds the head ahead of it and brings us here.
                self._note(error)
            except Exception:
                logger.exception("a message failed", extra={"action": "message_failed"})
            await asyncio.sleep(0)

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
                    self._bus.check_soon()
                self.receive(Batch(head.epoch, head.seq, [], []))
            before = now

    @property
    def _fed(self) -> bool:
        return self._bus is None or self._bus.healthy

    async def _went_back(self, seen: Position) -> Head:
        # What was handed out is not in the log any more: a backup was restored, or a standby that
        # had not heard everything took over. Its numbers will be given again, to other changes.
        return await in_database_thread(
            lambda: renew_epoch(connections[self._alias], Head(seen.epoch, seen.seq))
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
        self.counters.batches.add(len(rows))
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
        await self.subscribers.restart(Position(head.epoch, head.seq))
        # In one breath: no answer may name the new position to a channel that was not told.
        self.log.start(head)
        for port in self.subscribers.all():
            port.resync(self.position)
        self.presence.reload()

    async def _process(self, events: Sequence[DatabaseEvent]) -> None:
        bound = False
        self._breath.begin()
        for place, event in enumerate(events):
            if self.subscribers.decides(event):
                # What came before is told by the permissions of before.
                self.presence.flush()
                if not bound and self.subscribers.binds(event):
                    # What the database says now includes every change of this batch.
                    bound = True
                    await self.subscribers.rebind(self.subscribers.scope(events[place:]))
                await self.subscribers.shift(event)
            self.log.append(event)
            self.counters.events += 1
            if not event.relation.published and event.relation.table in self._inner:
                self._inner[event.relation.table](event)
                continue
            with self.subscribers.still():
                deliveries = await self._matched(event)
                self.counters.matched += bool(deliveries)
                for delivery in deliveries:
                    self._deliver(event, delivery)
            await self._breath.pause()
        self.presence.flush()

    async def _matched(self, event: DatabaseEvent) -> list[Delivery[Subscriber]]:
        """Whom the event concerns. A long look lets others have their turn."""
        steps = self.subscribers.match(event)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: list[Delivery[Subscriber]] = done.value
                return found
            await self._breath.pause()

    def _deliver(self, event: DatabaseEvent, delivery: Delivery[Subscriber]) -> None:
        try:
            frame = SharedFrame(frames.of_change(event, delivery))
        except Exception:
            # Whatever it is, it concerns this audience only, and this audience is told.
            logger.exception("a change cannot be encoded", extra={"action": "encoding_failed"})
            for port in tuple(delivery.audience.members):
                port.resync(self.position)
            return
        members = delivery.audience.members
        self.counters.sent(len(members), len(frame))
        self.counters.delivered += len(members)
        members.send(frame)

    def _message(self, event: DatabaseEvent) -> None:
        if event.new is not None:
            self._cast(broadcast_of(event.new))

    def _member(self, event: DatabaseEvent) -> None:
        self.counters.presence += 1
        self.presence.take(event)

    def _cast_some(self) -> None:
        started = time.perf_counter()
        while self._casts and time.perf_counter() - started < SLICE_SECONDS:
            self._cast(self._casts.pop())

    def _cast(self, cast: Broadcast) -> None:
        self.counters.casts += 1
        origin = self.topics.listener(cast.origin)
        for version, group in self.topics.groups(cast.topic, cast.private):
            encoded = of_broadcast(cast, version)
            if encoded is None:
                continue
            frame = SharedFrame(encoded)
            self.counters.sent(len(group) - (origin in group), len(frame))
            if not cast.id:
                group.send(frame, without=origin)
                continue
            for port in group:
                if port is not origin:
                    port.hear(frame, cast.id)

    def _note(self, error: Exception | None) -> None:
        # One line per change of state, however long an outage lasts.
        if error is not None and not self._failing:
            logger.warning("the log cannot be read: %s", error, extra={"action": "log_failing"})
        elif error is None and self._failing:
            logger.info("the log can be read again", extra={"action": "log_works"})
        self._failing = error is not None
