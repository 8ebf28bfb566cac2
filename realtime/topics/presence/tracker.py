"""The presence of the topics that channels of this process listen to.

A topic is read from the table for its first listener here and dropped with its last one; in between
messages on the bus bring the changes, and `known` says which of them were missed. Never writes:
`PresenceWriter` writes the changes of channels of this process, and hands them over here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from realtime.event_log.position import Position
from realtime.topics.listeners import Listener
from realtime.topics.presence.changes import Key, PresenceChanges, PresenceEnded
from realtime.topics.presence.early import EarlyChanges, is_early
from realtime.topics.presence.known import KnownPresence, Table
from realtime.topics.presence.loaded_topic import Callback, LoadedTopic
from realtime.topics.presence.store import read
from realtime.util.backoff import Backoff
from realtime.util.counters import Counters
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread
from realtime.util.tasks import cancelled

logger = logging.getLogger("realtime.presence")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
# Topics of one read.
_TOPICS = 200
# Between two reads of whole processes: where the bus loses much, they would follow each other.
_PROCESSES_SECONDS = 0.1
# Messages that wait while the table is read. Of those beyond, their processes are read instead.
_MOST_HELD = 1_000
# How long changes are collected for one diff, where many listen.
_SECONDS_PER_LISTENER = 0.0005


@dataclass(frozen=True, slots=True)
class LookTiming:
    """Seconds between two looks at the numbers of all processes."""

    fed: float = 1.0
    #: While the bus brings nothing of other processes, so that only the looks do.
    alone: float = 0.25


_TIMING = LookTiming()


class PresenceTracker:
    """All methods are called on one event loop. `seconds_per_listener` sets how long the changes
    of a large topic are collected for one diff."""

    def __init__(
        self,
        alias: str,
        process: str = "",
        *,
        counters: Counters | None = None,
        seconds_per_listener: float = _SECONDS_PER_LISTENER,
        timing: LookTiming = _TIMING,
    ) -> None:
        """`process` is the id of this process."""
        self.seconds_per_listener = seconds_per_listener
        self.timing = timing
        #: Up to which position the rights of channels here are known; None where nobody asks.
        self.rights_at: Callable[[], Position | None] = lambda: None
        #: Whether the bus brings the changes of all other processes.
        self.fed: Callable[[], bool] = lambda: True
        #: Whether this process has members in the table.
        self.has_members: Callable[[], bool] = lambda: False
        #: Called when the table lacks writes of this process that had passed.
        self.lost: Callable[[], None] = lambda: None
        self._counters = Counters() if counters is None else counters
        self._alias = alias
        self._known = KnownPresence(process)
        self._topics: dict[Key, LoadedTopic] = {}
        self._topic_of: dict[Listener, Key] = {}
        self._changed: dict[Key, None] = {}
        # The number of the last write of this process that passed.
        self._written = 0
        # Topics to be read, whether a look is due, and what reads.
        self._unread: dict[Key, None] = {}
        self._look_due = False
        self._wanted = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._processes_due = 0.0
        # Messages that came while the table is being read; None when it is not being read.
        self._held: list[tuple[PresenceChanges, Collection[tuple[Key, Callback]]]] | None = None
        # The processes of further messages.
        self._unheld: set[str] = set()
        # Those that wait until rights are known.
        self._early: EarlyChanges[Collection[tuple[Key, Callback]]] = EarlyChanges(process)

    def __len__(self) -> int:
        """The number of topics that are loaded here."""
        return len(self._topics)

    @asynccontextmanager
    async def loaded(self, topic: str, private: bool) -> AsyncIterator[None]:
        """Keep a topic loaded while the block runs. Raises what the database raises."""
        key = (topic, private)
        loaded = self._topics.get(key)
        if loaded is None:
            ready = asyncio.get_running_loop().create_future()
            loaded = self._topics[key] = LoadedTopic(topic, ready)
            self._unread[key] = None
            self._read_soon()
        loaded.blocks += 1
        try:
            if loaded.ready is not None:
                await asyncio.shield(loaded.ready)
            yield
        finally:
            loaded.blocks -= 1
            self._drop_if_idle(key, loaded)

    def join(self, listener: Listener, topic: str, private: bool) -> bytes:
        """Send the topic's diffs to this channel. Returns the payload of the `presence_state` they
        continue. Only inside `loaded`."""
        self.leave(listener)
        key = (topic, private)
        loaded = self._topics[key]
        loaded.join(listener)
        self._topic_of[listener] = key
        return self._known.topics[key].state()

    def leave(self, listener: Listener) -> None:
        """Send no more diffs to this channel; does nothing if it receives none."""
        key = self._topic_of.pop(listener, None)
        if key is None:
            return
        loaded = self._topics[key]
        loaded.leave(listener)
        self._drop_if_idle(key, loaded)

    def receives(self, listener: Listener) -> bool:
        """Whether this channel receives diffs."""
        return listener in self._topic_of

    # --- changes --------------------------------------------------------------------------------

    def hear(self, message: PresenceChanges | PresenceEnded) -> None:
        """Take a message of the bus. Those of this process are skipped: see `wrote`."""
        if message.process == self._known.process:
            return
        if isinstance(message, PresenceEnded):
            self._look_soon()
        elif self._held is None:
            self._take(message)
        elif len(self._held) < _MOST_HELD:
            self._held.append((message, ()))
        else:
            self._unheld.add(message.process)

    def wrote(self, message: PresenceChanges, done: Collection[tuple[Key, Callback]] = ()) -> None:
        """Take what this process wrote. Each callback is called once all listeners of its topic
        here were sent the change."""
        self._written = message.number
        if self._held is None:
            self._take(message, done)
        else:
            self._held.append((message, done))

    def after_sending(self, key: Key, callback: Callback) -> None:
        """Call this behind the callbacks of the topic that wait for a diff."""
        waiting = self._topics.get(key)
        if waiting is not None and waiting.callbacks:
            waiting.callbacks.append(callback)
        else:
            callback()

    def flush(self) -> None:
        """Send the changes: at once, or a little later where a topic has many listeners, or rights
        on it are not known yet as of the change. To be called when more is known of rights."""
        if self._held is None:
            for message, done in self._early.due(self.rights_at()):
                self._apply(message, done)
        self._send_changed()

    def reload(self) -> None:
        """Read every topic again, because what is known here may not be true."""
        for key, loaded in self._topics.items():
            self._unread[key] = None
            if loaded.ready is None:
                loaded.ready = asyncio.get_running_loop().create_future()
        self._read_soon()

    async def run(self) -> None:
        """Look at the numbers of all processes now and then, until cancelled."""
        while True:
            await asyncio.sleep(self.timing.fed if self.fed() else self.timing.alone)
            if self._topics or self.has_members():
                self._look_soon()

    async def stop(self) -> None:
        """Stop reading and sending."""
        for loaded in self._topics.values():
            loaded.stop_waiting()
            if loaded.ready is not None:
                loaded.ready.cancel()
        if self._reading is not None:
            await cancelled([self._reading])

    def _take(self, message: PresenceChanges, done: Collection[tuple[Key, Callback]] = ()) -> None:
        if not self._early.put(message, done, self.rights_at()):
            self._apply(message, done)
            self._send_changed()

    def _apply(self, message: PresenceChanges, done: Collection[tuple[Key, Callback]]) -> None:
        self._counters.presence += message.weight
        try:
            touched = self._known.hear(message)
            at = self.rights_at()
            if at is not None and message.epoch not in ("", at.epoch):
                self._touch_privately(touched, Position(message.epoch, message.seq))
            else:
                self._changed |= dict.fromkeys(touched)
        except Exception:
            logger.exception("a message failed", extra={"action": "message_failed"})
            self.reload()
        for key, callback in done:
            loaded = self._topics.get(key)
            if loaded is None or key not in self._known.topics:
                callback()
            else:
                loaded.callbacks.append(callback)
                self._changed[key] = None
        if self._known.unread:
            self._read_soon()

    def _touch_privately(self, keys: Iterable[Key], after: Position) -> None:
        """These topics have changed; of the private ones nothing is sent before rights are known as
        of `after`."""
        for key in keys:
            self._changed[key] = None
            if key[1] and after.epoch and key in self._topics:
                self._topics[key].after = after

    # --- sending --------------------------------------------------------------------------------

    def _send_changed(self) -> None:
        changed, self._changed = self._changed, {}
        for key in changed:
            loaded = self._topics.get(key)
            if loaded is not None:
                send = partial(self._send_permitted, key, loaded)
                loaded.send_soon(send, self.seconds_per_listener)

    def _send_permitted(self, key: Key, loaded: LoadedTopic) -> None:
        """Send the changes of a topic, unless rights are not known yet as of there."""
        at, after = self.rights_at(), loaded.after
        if at and after and (at.epoch != after.epoch or is_early(after.epoch, after.seq, at)):
            loaded.stop_waiting()
            # The dispatcher calls `flush` behind what it has handed out.
            self._changed[key] = None
            return
        loaded.after = None
        self._send(key, loaded)

    def _send(self, key: Key, loaded: LoadedTopic) -> None:
        members = self._known.topics.get(key)
        loaded.send(None if members is None else members.diff())

    # --- reading --------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._look_due = True
        self._read_soon()

    def _read_soon(self) -> None:
        self._wanted.set()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="rowcast-presence")

    async def _read_all(self) -> None:
        """Read until nothing is to be read."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
        loop = asyncio.get_running_loop()
        try:
            while self._unread or self._known.unread or self._look_due:
                self._wanted.clear()
                topics = list(islice(self._unread, _TOPICS))
                wait = self._processes_due - loop.time()
                if self._waits_for_rights():
                    # Another read would have to wait for more of the log.
                    wait = max(wait, _PROCESSES_SECONDS)
                processes = set(self._known.unread) if wait <= 0 else set()
                if not (topics or processes or self._look_due):
                    await self._pause(wait)
                    continue
                try:
                    await self._read(topics, processes)
                except Exception as error:
                    level = logging.DEBUG if isinstance(error, DATABASE_ERRORS) else logging.ERROR
                    logger.log(
                        level, "presence not read: %s", error, extra={"action": "presence_unread"}
                    )
                    self._failed(topics, error)
                    await self._pause(backoff.next())
                else:
                    backoff.reset()
                if processes:
                    self._processes_due = loop.time() + _PROCESSES_SECONDS
        finally:
            self._reading = None

    def _waits_for_rights(self) -> bool:
        return any(key in self._topics and self._topics[key].after for key in self._changed)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something else is to be read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    async def _read(self, topics: list[Key], processes: set[str]) -> None:
        for key in topics:
            self._unread.pop(key, None)
        look, self._look_due = self._look_due, False
        written = self._written
        self._held = []
        try:
            table = await in_database_thread(read, self._alias, topics, processes)
            # Those that nobody needs any more, and those that are to be read once more.
            loading = [key for key in topics if key in self._topics and key not in self._unread]
            self._take_table(table, loading, processes)
            if look:
                self._known.look(table, at_once=not self.fed())
            own = self._known.process
            if own in table.numbers and (table.numbers[own] or 0) < written:
                self.lost()
        except Exception:
            self._look_due = self._look_due or look
            raise
        finally:
            held, self._held = self._held, None
            unheld, self._unheld = self._unheld, set()
            for message, done in held:
                self._take(message, done)
            self._known.unread |= unheld
            self.flush()

    def _take_table(self, table: Table, topics: list[Key], processes: set[str]) -> None:
        touched = self._known.take(table, topics, processes)
        at = Position(table.epoch, table.seq)
        for key in self._changed:
            waiting = self._topics.get(key)
            if waiting and waiting.after and waiting.after.epoch != at.epoch:
                # A position of a former epoch, which nobody reaches any more.
                waiting.after = at
        # What is read for the first time goes to nobody.
        first = [key for key in topics if not self._topics[key].has_listeners]
        self._touch_privately(touched.difference(first), at)
        for key in first:
            self._send(key, self._topics[key])
        self._send_changed()
        for key in topics:
            ready, self._topics[key].ready = self._topics[key].ready, None
            if ready is not None and not ready.done():
                ready.set_result(None)

    def _failed(self, topics: list[Key], error: Exception) -> None:
        """These topics could not be read: those who wait for the first read of one are told."""
        for key in topics:
            loaded = self._topics.get(key)
            if loaded is None:
                continue
            if key in self._known.topics:
                self._unread[key] = None
                continue
            self._unread.pop(key, None)
            del self._topics[key]
            if loaded.ready is not None and not loaded.ready.done():
                loaded.ready.set_exception(error)
                # The blocks that wait get the exception. If all were cancelled, asyncio would log
                # it.
                loaded.ready.exception()

    def _drop_if_idle(self, key: Key, loaded: LoadedTopic) -> None:
        if loaded.has_listeners or loaded.blocks or self._topics.get(key) is not loaded:
            return
        del self._topics[key]
        self._unread.pop(key, None)
        self._known.drop(key)
        loaded.stop_waiting()
        if loaded.ready is not None:
            loaded.ready.cancel()
        loaded.call_back()
