"""The dispatcher of one server process: events of the log in, frames out.

Takes batches from the bus, checks that none is missing (and reads the log itself if one is),
matches each event with the subscriptions, encodes each frame once and hands it to every socket of
its audience. On the delivery path there is no database call and no change of threads. A change of a
row behind a `select` moves the sets that the row is in. When other permissions change, delivery
pauses until the subscriptions concerned are bound to the new permissions. So a revocation at seq n
holds for every event from n on (RT-D2).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from realtime.bus.bus import Bus, Message
from realtime.dispatcher.broadcast_delivery import BroadcastDelivery
from realtime.dispatcher.change_delivery import ChangeDelivery
from realtime.dispatcher.head_monitor import HeadMonitor, MonitorTiming
from realtime.event_log.batch import Batch
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.models import Message as StoredMessage
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.manager import SubscriptionManager
from realtime.subscriptions.rebinding import Rhythm
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.subscriber import Subscriber
from realtime.topics.broadcast import BroadcastBatch, PassingBatch
from realtime.topics.listeners import TopicListeners
from realtime.topics.presence.changes import PresenceChanges, PresenceEnded
from realtime.topics.presence.tracker import PresenceTracker
from realtime.topics.stored import broadcast_of, user_to_disconnect
from realtime.util.counters import Counters
from realtime.util.database_threads import passes
from realtime.util.outage_log import OutageLog
from realtime.util.time_slice import TimeSlice
from realtime.wal.head import Head

logger = logging.getLogger("realtime.dispatcher")


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """How much may wait in a dispatcher. Entries beyond it are read from the log; broadcasts beyond
    it are lost.

    So a large transaction waits in the log and not in the memory of every process.
    """

    batches: int = 1_000
    rows: int = 20_000
    broadcasts: int = 10_000
    broadcasts_of_topic: int = 1_000


_INBOX = InboxLimits()
_STEADY = Rhythm()
_TIMING = MonitorTiming()
_UNBOUNDED = ReplayBounds()
# Between two attempts to bind every channel anew.
_DOUBT_SECONDS = 1.0


class Dispatcher:
    """All methods are called on the event loop that `start` was called on."""

    def __init__(
        self,
        alias: str,
        ring_size: int,
        counters: Counters | None = None,
        *,
        process: str = "",
        bounds: ReplayBounds = _UNBOUNDED,
        rhythm: Rhythm = _STEADY,
        timing: MonitorTiming = _TIMING,
    ) -> None:
        """`process` is the id of this process."""
        self.counters = Counters() if counters is None else counters
        self.log = EventLog(ring_size)
        #: Reads the log here.
        self.reader = LogReader(alias, self.log)
        self.subscriptions = SubscriptionManager(
            self.log, self.reader, AccessWatch(alias), self.counters, bounds=bounds, rhythm=rhythm
        )
        self._channels = self.subscriptions.channels
        self._rebinding = self.subscriptions.rebinding
        self.topics: TopicListeners[Subscriber] = TopicListeners()
        self.presence = PresenceTracker(alias, process, counters=self.counters)
        self.presence.rights_at = self._rights_at
        #: Called with the ids of users that changed, or None for all users.
        self.users_changed: Callable[[Collection[str] | None], None] = _ignore
        #: Called with a user id whose connections are to end.
        self.disconnected: Callable[[str], None] = _ignore
        # Each with its weight, which is not counted twice.
        self._inbox: deque[tuple[Batch, int]] = deque()
        #: May be replaced while the dispatcher runs, except for those of broadcasts.
        self.inbox_limits = _INBOX
        self._broadcasts = BroadcastDelivery(
            self.topics,
            self.counters,
            rhythm.slice_seconds,
            most=_INBOX.broadcasts,
            most_of_topic=_INBOX.broadcasts_of_topic,
        )
        self._news = asyncio.Event()
        self._waiting_rows = 0
        # While an event is being delivered, the position before it.
        self._before: Position | None = None
        # Changes of permissions for which channels were not bound anew yet.
        self._unbound: list[DatabaseEvent] = []
        # Why the rights that are bound may not be true any more. Nothing is delivered until every
        # channel was bound anew.
        self._doubt: str | None = None
        # Tables of which nothing comes any more, or something again, by `db_table`.
        self._recaptured: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._time_slice = TimeSlice(rhythm.slice_seconds)
        self._changes = ChangeDelivery(self._channels, self.log, self.counters, self._time_slice)
        self._outage = OutageLog(
            logger,
            failing="the log cannot be read: %s",
            failing_action="log_failing",
            works="the log can be read again",
            works_action="log_works",
        )
        #: Finds out when this process is behind the log.
        self.monitor = HeadMonitor(
            self.log, self.reader, self._behind, self._outage, self.counters, timing
        )

    @property
    def position(self) -> Position:
        """The last event that this process has delivered: not the one that it is delivering, which
        a client that resumes at it would never get."""
        return self.log.position if self._before is None else self._before

    @property
    def busy(self) -> bool:
        """Whether received broadcasts wait to be delivered."""
        return bool(self._broadcasts)

    async def start(self, bus: Bus | None = None) -> None:
        """Begin at the head of the log. Raises what the database raises."""
        self.monitor.bus = bus
        if bus is not None:
            self.presence.fed = lambda: bus.brings_others
        head = await self.reader.head()
        await self.subscriptions.start()
        self.log.start(head)
        self._tasks = [
            asyncio.create_task(self._run(), name="rowcast-dispatcher"),
            asyncio.create_task(self.monitor.run(), name="rowcast-head-monitor"),
            asyncio.create_task(self.presence.run(), name="rowcast-presence-monitor"),
        ]

    async def stop(self) -> None:
        """Stop taking messages. Nothing is delivered from here on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._rebinding.end()
        await self.presence.stop()
        self._tasks = []

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a channel from subscriptions, topics and presence."""
        self._channels.remove(subscriber)
        self.topics.leave(subscriber)
        self.presence.leave(subscriber)

    def receive(self, message: Message) -> None:
        """Take a message from the bus. When too many entries wait, the log is read instead; a
        broadcast is dropped when too many of its topic wait."""
        if isinstance(message, BroadcastBatch | PassingBatch):
            self._broadcasts.receive(message)
            self._news.set()
            return
        if isinstance(message, PresenceChanges | PresenceEnded):
            self._hear(message)
            return
        limits = self.inbox_limits
        weight = message.weight
        if message.rows and self._waiting_rows + weight > limits.rows:
            # The position of the log without its entries.
            message = Batch(message.epoch, message.rows[-1].seq, [], [])
            weight = 0
            self.counters.inbox_full += 1
        if len(self._inbox) >= limits.batches:
            self.counters.inbox_full += 1
            logger.info("inbox full: reading the log", extra={"action": "inbox_full"})
        else:
            self._inbox.append((message, weight))
            self._waiting_rows += weight
        self._news.set()

    def capture_changed(self, tables: Collection[str]) -> None:
        """Nothing comes of these tables (by `db_table`) any more, or something again: the channels
        that are subscribed to them are planned anew, and told."""
        self._recaptured.update(tables)
        self._news.set()

    # --- the log --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            idle = not self._inbox and not self._broadcasts and not self._recaptured
            if idle and self._doubt is None:
                self._news.clear()
                await self._news.wait()
            try:
                if self._doubt is not None:
                    await self._resync(await self.reader.head(), self._doubt)
                if self._inbox:
                    batch, weight = self._inbox.popleft()
                    self._waiting_rows -= weight
                    await self._take(batch)
                    self._outage.worked()
                if self._recaptured:
                    await self._follow_capture()
                # In alternation, so that a flood of changes does not delay broadcasts, nor the
                # other way round.
                self._broadcasts.deliver_some()
            except Exception as error:
                if passes(error):
                    # The position stays; the monitor finds the head ahead of it and tries again.
                    self._outage.failed(error)
                else:
                    logger.exception("a message failed", extra={"action": "message_failed"})
                if self._doubt is not None:
                    await asyncio.sleep(_DOUBT_SECONDS)
            await asyncio.sleep(0)

    def _behind(self, head: Head) -> None:
        # For a batch without entries the log is read.
        self.receive(Batch(head.epoch, head.seq, [], []))

    async def _follow_capture(self) -> None:
        tables, self._recaptured = self._recaptured, set()
        try:
            await self._rebinding.rebind_tables(tables, self.log.position)
        except Exception:
            self._doubt = "a table that is captured no more, or again, cannot be followed"
            raise

    async def _take(self, batch: Batch) -> None:
        if batch.epoch != self.log.epoch:
            # Skip an old batch that comes late.
            head = await self.reader.head()
            if head.epoch != self.log.epoch:
                await self._resync(head, "the log began a new epoch")
            return
        if batch.after > self.log.seq:
            self.counters.heals += 1
            await self._read_up_to(batch.after)
        self.reader.learn(batch.relations)
        rows = [row for row in batch.rows if row.seq > self.log.seq]
        self.counters.batches.add(len(rows))
        if rows and rows[0].seq == self.log.seq + 1:
            await self._process(self.reader.events(rows))

    async def _read_up_to(self, upto: int) -> None:
        while self.log.seq < upto:
            events = await self.reader.from_table(self.log.seq, upto)
            if not events:
                # Pruned before it was read: every channel here must read its rows again.
                why = f"change {self.log.seq + 1} is not kept any more"
                await self._resync(await self.reader.head(), why)
                return
            self.counters.healed_events += len(events)
            await self._process(events)

    async def _resync(self, head: Head, why: str) -> None:
        self.counters.resyncs += 1
        logger.warning(
            "every channel has to read its rows again: %s; from %s to %s",
            why,
            self.log.seq,
            head.seq,
            extra={"action": "resync"},
        )
        self._unbound.clear()
        await self._rebinding.restart(Position(head.epoch, head.seq))
        # Nothing is awaited from here on: no reply may name the new position to a channel before
        # the channel is notified.
        self.log.start(head)
        for subscriber in self._channels:
            subscriber.resync(self.log.position)
        self._doubt = None
        self.presence.reload()
        self.users_changed(None)

    async def _process(self, events: Sequence[DatabaseEvent]) -> None:
        try:
            await self._deliver_all(events)
        except Exception as error:
            if passes(error) and self._doubt is None:
                raise
            # A change of permissions that cannot be read could not be followed later either, and
            # one that was followed in part must not pass for followed when it comes again.
            logger.exception("permissions cannot be followed", extra={"action": "message_failed"})
            if self._doubt is None:
                self._doubt = f"change {self.log.seq + 1} or one before it cannot be followed"
            await self._resync(await self.reader.head(), self._doubt)

    async def _deliver_all(self, events: Sequence[DatabaseEvent]) -> None:
        self._time_slice.begin()
        for event in events:
            if self.subscriptions.decides(event):
                # Earlier events are delivered by the earlier permissions.
                self.presence.flush()
                await self._follow(event)
            elif self._unbound:
                await self._rebind()
            before = self.log.position
            self.log.append(event)
            self.counters.events += 1
            relation = event.relation
            if relation.table == StoredMessage._meta.db_table and not relation.published:
                try:
                    self._message(event)
                except Exception:
                    logger.exception("a message failed", extra={"action": "message_failed"})
                continue
            with self._channels.frozen():
                self._before = before
                try:
                    await self._changes.deliver(event)
                except Exception:
                    logger.exception("a change failed", extra={"action": "delivery_failed"})
                    self._changes.lost(event)
                finally:
                    self._before = None
            await self._time_slice.pause()
        await self._rebind()
        self.presence.flush()

    async def _follow(self, event: DatabaseEvent) -> None:
        """Follow a change of a table that decides access."""
        if self.subscriptions.watch.binds(event):
            self._unbound.append(event)
            self._rebinding.overtake(event)
            if event.relation.published:
                await self._rebind()
        else:
            await self._rebind()
        try:
            await self._rebinding.shift(event)
        except Exception:
            self._doubt = f"change {event.seq} has moved some sets and not others"
            raise

    async def _rebind(self) -> None:
        """Bind the channels that pending changes of permissions concern, as of the last change.
        Changes without an event to deliver between them are followed together."""
        if not self._unbound:
            return
        scope = self.subscriptions.watch.scope(self._unbound)
        at = Position(self.log.epoch, self._unbound[-1].seq)
        await self._rebinding.rebind(scope, at=at)
        self._unbound.clear()
        self.users_changed(None if scope.everybody else scope.users)

    def _message(self, event: DatabaseEvent) -> None:
        if event.new is None:
            return
        user_id = user_to_disconnect(event.new)
        if user_id is None:
            self._broadcasts.deliver(broadcast_of(event.new))
        else:
            self.disconnected(user_id)

    def _hear(self, message: PresenceChanges | PresenceEnded) -> None:
        try:
            self.presence.hear(message)
        except Exception:
            logger.exception("a message failed", extra={"action": "message_failed"})
            self.presence.reload()

    def _rights_at(self) -> Position:
        """The position up to which changes of permissions are followed."""
        if self._doubt is not None:
            return Position(self.log.epoch, -1)
        if self._unbound:
            return Position(self.log.epoch, self._unbound[0].seq - 1)
        return self.log.position


def _ignore(_: object) -> None:
    """For a dispatcher without connections."""
