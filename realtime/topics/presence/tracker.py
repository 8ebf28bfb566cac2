"""The presence of the topics that channels of this process listen to.

A topic is read from the table for its first listener here and dropped with its last one; in between
the log brings the changes. Never writes: `PresenceWriter` writes the changes of channels of this
process, which come back through the log like those of other processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import ParamSpec, TypeVar

from realtime.delivery.frame import SharedFrame
from realtime.delivery.recipients import Recipients
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.serializer import Version
from realtime.topics.frames import of_presence
from realtime.topics.listeners import Listener
from realtime.topics.presence.state import PresenceMeta, PresenceState
from realtime.topics.presence.store import read, versions
from realtime.util.backoff import Backoff
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.presence")

P = ParamSpec("P")
T = TypeVar("T")

Callback = Callable[[], None]
_sink_of = attrgetter("outlet")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
# A diff costs one frame for each listener. From this many listeners on, the changes of up to a
# second go into one diff: a thousand people who come at once then cost a few thousand frames
# instead of a million.
_MANY_LISTENERS = 50
_SECONDS_PER_LISTENER = 0.0005
_LONGEST_WAIT = 1.0


class _Topic:
    """A topic that is loaded here."""

    def __init__(self) -> None:
        self.members = PresenceState()
        # Listeners of one protocol version receive the same frames.
        self.listeners: dict[Version, Recipients[Listener]] = {}
        # How many `with tracker.loaded(...)` blocks are running.
        self.blocks = 0
        self.loading: asyncio.Task[None] | None = None
        # Changes that came while the table was being read; None when it is not being read.
        self.meanwhile: list[DatabaseEvent] | None = None
        # Whether changes were missed while the table was being read.
        self.missed = False
        self.sent_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.callbacks: list[Callback] = []


class PresenceTracker:
    """All methods are called on one event loop. `seconds_per_listener` sets how long the changes
    of a large topic are collected for one diff."""

    def __init__(self, alias: str, seconds_per_listener: float = _SECONDS_PER_LISTENER) -> None:
        self.seconds_per_listener = seconds_per_listener
        self._alias = alias
        self._topics: dict[tuple[str, bool], _Topic] = {}
        self._topic_of: dict[Listener, tuple[str, bool]] = {}
        self._changed: dict[tuple[str, bool], None] = {}
        # By member: callbacks, each with the version it waits for (None: until it is gone).
        self._expected: dict[str, list[tuple[int | None, Callback]]] = {}
        # Finds those of them whose change was missed; and whether more may have been missed since.
        self._settling: asyncio.Task[None] | None = None
        self._unsettled = False

    def __len__(self) -> int:
        """The number of topics that are loaded here."""
        return len(self._topics)

    @asynccontextmanager
    async def loaded(self, topic: str, private: bool) -> AsyncIterator[None]:
        """Keep a topic loaded while the block runs. Raises what the database raises."""
        key = (topic, private)
        loaded = self._topics.get(key)
        if loaded is None:
            loaded = self._topics[key] = _Topic()
            loaded.loading = asyncio.create_task(self._load(key, loaded), name="rowcast-presence")
            # The blocks that wait get the exception. If all were cancelled, asyncio would log it.
            loaded.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        loaded.blocks += 1
        try:
            if loaded.loading is not None:
                await asyncio.shield(loaded.loading)
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
        if listener.version not in loaded.listeners:
            loaded.listeners[listener.version] = Recipients(_sink_of)
        loaded.listeners[listener.version].add(listener)
        self._topic_of[listener] = key
        return loaded.members.state()

    def leave(self, listener: Listener) -> None:
        """Send no more diffs to this channel; does nothing if it receives none."""
        key = self._topic_of.pop(listener, None)
        if key is None:
            return
        loaded = self._topics[key]
        group = loaded.listeners[listener.version]
        group.discard(listener)
        if not group:
            del loaded.listeners[listener.version]
        self._drop_if_idle(key, loaded)

    def receives(self, listener: Listener) -> bool:
        """Whether this channel receives diffs."""
        return listener in self._topic_of

    def expect(self, member: str, version: int | None, callback: Callback) -> None:
        """Call `callback` once, after all listeners here were sent this version of a member, or,
        for None, that the member has left."""
        self._expected.setdefault(member, []).append((version, callback))

    def forget(self, member: str) -> None:
        """Drop the callbacks of this member."""
        self._expected.pop(member, None)

    def take(self, event: DatabaseEvent) -> None:
        """Apply a change of the table, in the order of the log."""
        row = event.new if event.new is not None else event.old
        if row is None:
            # A TRUNCATE emptied the table.
            self.reload()
            return
        key = (row["topic"], row["private"])
        loaded = self._topics.get(key)
        callbacks = self._due(row["id"], None if event.new is None else row["version"])
        if loaded is None:
            for callback in callbacks:
                callback()
            return
        loaded.callbacks += callbacks
        if loaded.meanwhile is not None:
            loaded.meanwhile.append(event)
        else:
            _apply(loaded.members, event)
        self._changed[key] = None

    def flush(self) -> None:
        """Send the changes: at once, or a little later where a topic has many listeners."""
        if not self._changed:
            return
        now = asyncio.get_running_loop().time()
        changed, self._changed = self._changed, {}
        for key in changed:
            loaded = self._topics.get(key)
            if loaded is None or loaded.meanwhile is not None or loaded.timer is not None:
                continue
            due = loaded.sent_at + self._interval(loaded)
            if now >= due:
                self._send(key, loaded)
            else:
                loop = asyncio.get_running_loop()
                loaded.timer = loop.call_later(due - now, self._send, key, loaded)

    def reload(self) -> None:
        """Read every topic again, because changes were missed; then answer those who wait for
        changes that will not come."""
        for key, loaded in self._topics.items():
            loaded.missed = True
            if loaded.loading is None:
                task = asyncio.create_task(self._reload(key, loaded), name="rowcast-presence")
                loaded.loading = task

        if self._expected and self._settling is None:
            self._settling = asyncio.create_task(self._settle(), name="rowcast-presence")
        self._unsettled = True

    async def stop(self) -> None:
        """Stop reading and sending."""
        tasks = []
        if self._settling is not None:
            self._settling.cancel()
            tasks.append(self._settling)
        for loaded in self._topics.values():
            if loaded.timer is not None:
                loaded.timer.cancel()
            if loaded.loading is not None:
                loaded.loading.cancel()
                tasks.append(loaded.loading)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- sending --------------------------------------------------------------------------------

    def _interval(self, loaded: _Topic) -> float:
        """Seconds between two diffs of a topic."""
        count = sum(map(len, loaded.listeners.values()))
        if count < _MANY_LISTENERS:
            return 0.0
        return min(count * self.seconds_per_listener, _LONGEST_WAIT)

    def _send(self, key: tuple[str, bool], loaded: _Topic) -> None:
        if loaded.timer is not None:
            # What it was set for is sent here, after a read that took its place.
            loaded.timer.cancel()
            loaded.timer = None
        loaded.sent_at = asyncio.get_running_loop().time()
        diff = loaded.members.diff()
        if diff is not None:
            topic = f"realtime:{key[0]}"
            for version, listeners in loaded.listeners.items():
                listeners.send(SharedFrame(of_presence(version, topic, diff)))
        callbacks, loaded.callbacks = loaded.callbacks, []
        for callback in callbacks:
            callback()

    def _due(self, member: str, version: int | None) -> list[Callback]:
        waiting = self._expected.get(member)
        if waiting is None:
            return []
        # A member that has left has no version to wait for.
        due: list[Callback] = []
        left: list[tuple[int | None, Callback]] = []
        for expected, callback in waiting:
            if version is None or (expected is not None and expected <= version):
                due.append(callback)
            else:
                left.append((expected, callback))
        if left:
            self._expected[member] = left
        else:
            del self._expected[member]
        return due

    async def _settle(self) -> None:
        """Call those whose change was missed, once the members were sent as they are now. What is
        not in the table yet comes by the log."""
        try:
            while self._unsettled:
                self._unsettled = False
                loading = [each.loading for each in self._topics.values() if each.loading]
                await asyncio.gather(*map(asyncio.shield, loading), return_exceptions=True)
                members = list(self._expected)
                found = await _insist(in_database_thread, versions, self._alias, members)
                for member in members:
                    for callback in self._stored(member, found.get(member)):
                        callback()
        finally:
            self._settling = None

    def _stored(self, member: str, version: int | None) -> list[Callback]:
        """As `_due`, for a member that the table has in this version, or does not have: perhaps
        because it was not written yet."""
        waiting = self._expected.pop(member, [])
        reached = 0
        for place, (expected, _) in enumerate(waiting, 1):
            if version is None:
                stored = expected is None
            else:
                stored = expected is not None and expected <= version
            if stored:
                # And those before it, whose change it has replaced.
                reached = place
        if waiting[reached:]:
            self._expected[member] = waiting[reached:]
        return [callback for _, callback in waiting[:reached]]

    # --- reading --------------------------------------------------------------------------------

    async def _load(self, key: tuple[str, bool], loaded: _Topic) -> None:
        try:
            entries = await self._read(key, loaded)
        except BaseException:
            # The next `loaded` reads again.
            if self._topics.get(key) is loaded:
                del self._topics[key]
            for callback in loaded.callbacks:
                callback()
            raise
        self._replace(key, loaded, entries)

    async def _reload(self, key: tuple[str, bool], loaded: _Topic) -> None:
        self._replace(key, loaded, await _insist(self._read, key, loaded))

    async def _read(self, key: tuple[str, bool], loaded: _Topic) -> list[PresenceMeta]:
        """The rows of a topic, read again if changes were missed meanwhile, which the first read
        may not have seen."""
        while True:
            loaded.meanwhile = []
            loaded.missed = False
            entries = await in_database_thread(read, self._alias, *key)
            if not loaded.missed:
                return entries

    def _replace(self, key: tuple[str, bool], loaded: _Topic, entries: list[PresenceMeta]) -> None:
        # Changes in `meanwhile` that are older than the rows read are ignored by their version.
        loaded.members.replace(entries)
        meanwhile, loaded.meanwhile = loaded.meanwhile or [], None
        for event in meanwhile:
            _apply(loaded.members, event)
        loaded.loading = None
        self._send(key, loaded)

    def _drop_if_idle(self, key: tuple[str, bool], loaded: _Topic) -> None:
        if loaded.listeners or loaded.blocks or self._topics.get(key) is not loaded:
            return
        del self._topics[key]
        if loaded.timer is not None:
            loaded.timer.cancel()
        if loaded.loading is not None:
            loaded.loading.cancel()
        callbacks, loaded.callbacks = loaded.callbacks, []
        for callback in callbacks:
            callback()


def _apply(members: PresenceState, event: DatabaseEvent) -> None:
    row = event.new
    if row is not None:
        user_id = (row["user_id"] if row["private"] else None) or ""
        members.put(PresenceMeta(row["id"], row["version"], row["key"], row.text("meta"), user_id))
    elif event.old is not None:
        members.remove(event.old["id"])


async def _insist(read: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `read` returns, tried again until it succeeds."""
    backoff = Backoff(_RETRY_FIRST, _RETRY_MOST)
    while True:
        try:
            return await read(*args, **kwargs)
        except Exception as error:
            level = logging.DEBUG if isinstance(error, DATABASE_ERRORS) else logging.ERROR
            logger.log(level, "presence not read: %s", error, extra={"action": "presence_unread"})
            await asyncio.sleep(backoff.next())
