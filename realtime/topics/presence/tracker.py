"""Who is present where, as the channels of one process are told.

A topic is read from the table when the first channel here watches it and forgotten with the last;
in between the log tells what changes. It never writes: what a channel of this process does is
written by `presence_writer` and comes back through the log, like what any other process does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Protocol

from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Sink
from realtime.delivery.recipients import Recipients
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.serializer import Version
from realtime.topics.frames import of_presence
from realtime.topics.presence.state import PresenceMeta, PresenceState
from realtime.topics.presence.store import read
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.presence")

Told = Callable[[], None]
_sink_of = attrgetter("outlet")

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
# A change of a topic costs a frame for each who watches it. From so many on changes wait for each
# other, a second at the most: a thousand who come at once are then a few frames and not a million.
_CROWD = 50
_SECONDS_PER_WATCHER = 0.0005
_LONGEST_WAIT = 1.0


class Watcher(Protocol):
    """A channel that is told who is present."""

    @property
    def version(self) -> Version: ...
    @property
    def outlet(self) -> Sink: ...


class _Room:
    """A topic that is watched here."""

    def __init__(self) -> None:
        self.known = PresenceState()
        # Those who speak the same version are told by the same frames.
        self.watchers: dict[Version, Recipients[Watcher]] = {}
        self.holds = 0
        self.loading: asyncio.Task[None] | None = None
        # What came while the table was being read.
        self.meanwhile: list[DatabaseEvent] | None = None
        self.told_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.then: list[Told] = []

    @property
    def wait(self) -> float:
        """Seconds between two diffs."""
        count = sum(map(len, self.watchers.values()))
        return 0.0 if count < _CROWD else min(count * _SECONDS_PER_WATCHER, _LONGEST_WAIT)


class PresenceTracker:
    """All methods are called on one event loop."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._rooms: dict[tuple[str, bool], _Room] = {}
        self._room_of: dict[Watcher, tuple[str, bool]] = {}
        self._changed: dict[tuple[str, bool], None] = {}
        # Who waits for news of which member: from which version on (None: its end), and what then.
        self._expected: dict[str, list[tuple[int | None, Told]]] = {}

    def __len__(self) -> int:
        """How many topics are watched here."""
        return len(self._rooms)

    @asynccontextmanager
    async def hold(self, topic: str, private: bool) -> AsyncIterator[None]:
        """Know who is present in a topic while the block runs. Raises what the database raises."""
        key = (topic, private)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = _Room()
            room.loading = asyncio.create_task(self._load(key, room), name="rowcast-presence")
            # Told to whoever waits; nobody may be left.
            room.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        room.holds += 1
        try:
            if room.loading is not None:
                await asyncio.shield(room.loading)
            yield
        finally:
            room.holds -= 1
            self._forget_if_idle(key, room)

    def join(self, watcher: Watcher, topic: str, private: bool) -> bytes:
        """Tell this channel from here on, beginning with what is returned: the payload of a
        `presence_state`. Only while the topic is held."""
        self.leave(watcher)
        key = (topic, private)
        room = self._rooms[key]
        if watcher.version not in room.watchers:
            room.watchers[watcher.version] = Recipients(_sink_of)
        room.watchers[watcher.version].add(watcher)
        self._room_of[watcher] = key
        return room.known.state()

    def leave(self, watcher: Watcher) -> None:
        """Tell it no more; nothing happens to who was not told."""
        key = self._room_of.pop(watcher, None)
        if key is None:
            return
        room = self._rooms[key]
        alike = room.watchers[watcher.version]
        alike.discard(watcher)
        if not alike:
            del room.watchers[watcher.version]
        self._forget_if_idle(key, room)

    def watches(self, watcher: Watcher) -> bool:
        """Whether this channel is told."""
        return watcher in self._room_of

    def expect(self, member: str, version: int | None, then: Told) -> None:
        """Call `then` when the log has told of this version of a member, or of its end (None), and
        everybody here knows."""
        self._expected.setdefault(member, []).append((version, then))

    def forget(self, member: str) -> None:
        """Nothing is to be expected of this member."""
        self._expected.pop(member, None)

    def take(self, event: DatabaseEvent) -> None:
        """A change of the table, in the order of the log."""
        row = event.new if event.new is not None else event.old
        if row is None:
            # Emptied by a TRUNCATE.
            self.reload()
            return
        key = (row["topic"], row["private"])
        room = self._rooms.get(key)
        then = self._due(row["id"], None if event.new is None else row["version"])
        if room is None:
            for told in then:
                told()
            return
        room.then += then
        if room.meanwhile is not None:
            room.meanwhile.append(event)
        else:
            _apply(room.known, event)
        self._changed[key] = None

    def flush(self) -> None:
        """Tell what has changed, or soon where many watch."""
        if not self._changed:
            return
        now = asyncio.get_running_loop().time()
        changed, self._changed = self._changed, {}
        for key in changed:
            room = self._rooms.get(key)
            if room is None or room.meanwhile is not None or room.timer is not None:
                continue
            due = room.told_at + room.wait
            if now >= due:
                self._tell(key, room)
            else:
                loop = asyncio.get_running_loop()
                room.timer = loop.call_later(due - now, self._tell, key, room)

    def reload(self) -> None:
        """What was known may be wrong: read every topic again."""
        for key, room in self._rooms.items():
            if room.loading is None:
                task = asyncio.create_task(self._reload(key, room), name="rowcast-presence")
                room.loading = task

    async def stop(self) -> None:
        """Stop reading and waiting."""
        tasks = []
        for room in self._rooms.values():
            if room.timer is not None:
                room.timer.cancel()
            if room.loading is not None:
                room.loading.cancel()
                tasks.append(room.loading)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, key: tuple[str, bool], room: _Room) -> None:
        room.timer = None
        room.told_at = asyncio.get_running_loop().time()
        diff = room.known.diff()
        if diff is not None:
            topic = f"realtime:{key[0]}"
            for version, watchers in room.watchers.items():
                watchers.send(SharedFrame(of_presence(version, topic, diff)))
        then, room.then = room.then, []
        for told in then:
            told()

    def _due(self, member: str, version: int | None) -> list[Told]:
        waiting = self._expected.get(member)
        if waiting is None:
            return []
        # The end of a member is the end of every version of it.
        due: list[Told] = []
        left: list[tuple[int | None, Told]] = []
        for expected, then in waiting:
            if version is None or (expected is not None and expected <= version):
                due.append(then)
            else:
                left.append((expected, then))
        if left:
            self._expected[member] = left
        else:
            del self._expected[member]
        return due

    # --- knowing --------------------------------------------------------------------------------

    async def _load(self, key: tuple[str, bool], room: _Room) -> None:
        room.meanwhile = []
        try:
            entries = await in_database_thread(read, self._alias, *key)
        except BaseException:
            # Nothing is known: who asks next reads anew.
            if self._rooms.get(key) is room:
                del self._rooms[key]
            for told in room.then:
                told()
            raise
        self._learn(key, room, entries)

    async def _reload(self, key: tuple[str, bool], room: _Room) -> None:
        wait = _RETRY_FIRST
        while True:
            room.meanwhile = []
            try:
                entries = await in_database_thread(read, self._alias, *key)
            except DATABASE_ERRORS as error:
                logger.debug("presence not read: %s", error, extra={"action": "presence_unread"})
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_MOST)
                continue
            self._learn(key, room, entries)
            return

    def _learn(self, key: tuple[str, bool], room: _Room, entries: list[PresenceMeta]) -> None:
        # What the log tells of the rows that were read is older than they are, and passed over.
        room.known.replace(entries)
        meanwhile, room.meanwhile = room.meanwhile or [], None
        for event in meanwhile:
            _apply(room.known, event)
        room.loading = None
        self._tell(key, room)

    def _forget_if_idle(self, key: tuple[str, bool], room: _Room) -> None:
        if room.watchers or room.holds or self._rooms.get(key) is not room:
            return
        del self._rooms[key]
        if room.timer is not None:
            room.timer.cancel()
        if room.loading is not None:
            room.loading.cancel()
        then, room.then = room.then, []
        for told in then:
            told()


def _apply(known: PresenceState, event: DatabaseEvent) -> None:
    row = event.new
    if row is not None:
        known.put(PresenceMeta(row["id"], row["version"], row["key"], row.text("meta")))
    elif event.old is not None:
        known.remove(event.old["id"])
