"""A server process without sockets: channels that keep what they get, and a log fed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.db.backends.utils import CursorWrapper

from auth_rls import Subject
from realtime.delivery.frame import SharedFrame
from realtime.delivery.outbox import Outgoing, Sink
from realtime.event_log import sequencer
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.position import Position
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.join import Binding, parse_join
from realtime.protocol.serializer import Version
from realtime.protocol.table_key import TableKey
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.index import Delivery
from realtime.subscriptions.manager import SubscriptionManager
from realtime.subscriptions.rebinding import Rhythm
from realtime.subscriptions.replay.bounds import ReplayBounds
from realtime.subscriptions.request import Request
from realtime.topics.rights import TopicRights
from realtime.util.counters import Counters
from tests.support.socket_client import db
from tests.support.waiting import auntil


class FakeSubscriber:
    """A joined channel that records its frames, and in `notices` the calls that are no frames. With
    `stuck` it is never writable, like the channel of a client that does not read."""

    version = Version.V2
    topic = "realtime:room"
    change_frame = ChangeFrame.BINDINGS
    patient = False

    def __init__(self, id_: str = "subscriber", stuck: bool = False) -> None:
        self.id = id_
        self.stuck = stuck
        self.frames: list[str] = []
        self.notices: list[str] = []
        # Its own outlet, so that frames are put one by one.
        self.outlet: Sink = self
        self.direct = None

    @property
    def broadcast_outlet(self) -> Sink:
        return self

    @property
    def connection(self) -> object:
        return self

    def put(self, frame: Outgoing) -> None:
        self.frames.append(str(frame.message if isinstance(frame, SharedFrame) else frame))

    def takes_more(self) -> bool:
        return True

    async def writable(self) -> None:
        if self.stuck:
            await asyncio.Event().wait()

    def resubscribed(self) -> None:
        self.notices.append("resubscribed")

    def caught_up(self, at: Position) -> None:
        self.notices.append(f"caught up {at.seq}")

    def snapshot_begins(self, at: Position, keys: Sequence[TableKey]) -> None:
        return None

    def snapshot(self, at: Position, count: int, complete: bool) -> None:
        self.notices.append(f"snapshot {count}{'' if complete else ' truncated'}")

    def resync(self, at: Position) -> None:
        self.notices.append("resync")

    def hear(self, frame: Outgoing, id_: str) -> None:
        self.put(frame)

    def permitted(self, rights: TopicRights) -> None:
        self.notices.append("permitted")

    def binding_ended(self, problem: str, *, working: bool) -> None:
        self.notices.append(f"ended: {problem}")

    def revoked(self) -> None:
        self.notices.append("revoked")


def bindings(**binding: Any) -> tuple[Binding, ...]:
    table = {"event": "*", "schema": "public", "table": "zoo_note", **binding}
    return parse_join({"config": {"postgres_changes": [table]}}).bindings


@contextmanager
def counting() -> Iterator[list[str]]:
    """Every statement of every thread while the block runs."""
    statements: list[str] = []
    execute = CursorWrapper.execute

    def counted(self: Any, sql: Any, params: Any = None) -> Any:
        statements.append(str(sql))
        return execute(self, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", counted)
        yield statements


class Server:
    """The log and the subscriptions of a server process; a test feeds it by hand."""

    def __init__(
        self, ring: int = 1_000, *, bounds: ReplayBounds | None = None, rhythm: Rhythm | None = None
    ) -> None:
        self.log = EventLog(ring)
        self.reader = LogReader("default", self.log)
        self.counters = Counters()
        self.subscriptions = SubscriptionManager(
            self.log,
            self.reader,
            AccessWatch("default"),
            self.counters,
            bounds=bounds or ReplayBounds(),
            rhythm=rhythm or Rhythm(),
        )
        self.channels = self.subscriptions.channels
        self.rebinding = self.subscriptions.rebinding

    async def start(self) -> None:
        await self.subscriptions.start()
        self.log.start(await self.reader.head())

    async def feed(self) -> None:
        """Number what is committed, and hand it out."""
        await db(lambda: sequencer.number(connections["default"], 10_000))
        head = await self.reader.head()
        while self.log.seq < head.seq:
            for event in await self.reader.from_table(self.log.seq, head.seq):
                await self.hand_out(event)

    async def hand_out(self, event: DatabaseEvent) -> None:
        """What a dispatcher does with one event."""
        if self.subscriptions.watch.binds(event):
            at = Position(self.log.epoch, event.seq)
            await self.rebinding.rebind(self.subscriptions.watch.scope([event]), at=at)
        await self.rebinding.shift(event)
        self.log.append(event)
        with self.channels.frozen():
            self.deliver(event)

    def deliver(self, event: DatabaseEvent) -> None:
        """Match an event, and let everybody have it whom it concerns."""
        found: list[Delivery[Any]] = []
        for _ in self.channels.matching(event, found):
            pass
        for delivery in found:
            for subscriber in delivery.audience.recipients:
                subscriber.put("live")

    async def resumed(
        self, since: Any, subject: Subject | None = None, **binding: Any
    ) -> FakeSubscriber:
        """A subscriber that has caught up, or got "resync required"."""
        subscriber = FakeSubscriber()
        asked = bindings(since=since, **binding)
        await self.subscriptions.add(subscriber, Request(subject or Subject.service(), asked))
        await auntil(lambda: not self.channels.replaying(subscriber))
        return subscriber
