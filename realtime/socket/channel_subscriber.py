"""A joined channel as a subscriber: changes, broadcasts and notices are delivered to it.

Also owns `Socket`, the part of a connection that subscribers, joins and topics use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from realtime.delivery.outbox import Outbox, Outgoing, Sink
from realtime.event_log.position import Position
from realtime.protocol.errors import CloseCode
from realtime.protocol.table_key import TableKey
from realtime.session.channel import Channel
from realtime.session.effects import Effect, Track
from realtime.session.session import Session
from realtime.topics.rights import TopicRights

# Ids of stored broadcasts that one channel remembers to skip. An id goes when the log delivers its
# broadcast; one whose delivery was lost must not stay for the life of the socket.
_MOST_SKIPPED = 1_000


class Socket(Protocol):
    """One connection, as its channels use it."""

    session: Session
    outbox: Outbox

    def perform(self, effects: list[Effect]) -> None: ...
    def start(self, work: Callable[[], Awaitable[None]], channel: Channel) -> None: ...
    def permit(self, channel: Channel, rights: TopicRights) -> None: ...
    def close(self, code: CloseCode) -> None: ...
    def set_timer(self) -> None: ...


class PendingBroadcasts:
    """Keeps the broadcasts that come before the join is answered; stored ones with their id."""

    __slots__ = ("frames",)

    direct = None

    def __init__(self) -> None:
        self.frames: list[tuple[str, Outgoing]] = []

    def put(self, frame: Outgoing) -> None:
        """Keep a broadcast that is not stored."""
        self.keep(frame, "")

    def keep(self, frame: Outgoing, id_: str) -> None:
        """Keep a stored broadcast."""
        self.frames.append((id_, frame))


class ChannelSubscriber:
    """One per joined channel. `id` is unique over all processes."""

    __slots__ = (
        "_channel",
        "_renewal",
        "_skipped",
        "_socket",
        "_storing",
        "broadcast_outlet",
        "change_frame",
        "id",
        "outlet",
        "topic",
        "user_id",
        "version",
        "waiting_tracks",
    )

    #: A client resumes by its cursor.
    patient = False

    def __init__(
        self, socket: Socket, channel: Channel, id_: str, user_id: str | None = None
    ) -> None:
        self._socket = socket
        self._channel = channel
        #: Takes every frame but broadcasts; never waits.
        self.outlet = socket.outbox
        #: Takes broadcasts that are not stored: the outlet, once the join is answered.
        self.broadcast_outlet: Sink = PendingBroadcasts()
        self.id = id_
        #: The user of the channel's token, if it has one.
        self.user_id = user_id
        self.topic = channel.topic
        #: The frame that changes come in.
        self.change_frame = channel.config.change_frame
        self.version = socket.session.version
        # Stored broadcasts that are not delivered when they come from the log, the oldest first.
        self._skipped: dict[str, None] = {}
        self._renewal: asyncio.Lock | None = None
        self._storing: asyncio.Lock | None = None
        #: Presence messages that wait for the channel's `presence_state`, in order.
        self.waiting_tracks: list[Track] = []

    @property
    def connection(self) -> object:
        """The same object for all channels of one socket."""
        return self._socket

    def renewal(self) -> asyncio.Lock:
        """Held while another token of the channel takes effect."""
        if self._renewal is None:
            self._renewal = asyncio.Lock()
        return self._renewal

    def storing(self) -> asyncio.Lock:
        """Held while a broadcast of the channel is stored: they are stored in order."""
        if self._storing is None:
            self._storing = asyncio.Lock()
        return self._storing

    def hear(self, frame: Outgoing, id_: str) -> None:
        """Queue a stored broadcast, unless it is to be skipped."""
        if isinstance(self.broadcast_outlet, PendingBroadcasts):
            self.broadcast_outlet.keep(frame, id_)
        elif id_ in self._skipped:
            del self._skipped[id_]
        else:
            self.outlet.put(frame)

    def skip(self, id_: str) -> None:
        """Do not queue this stored broadcast when it comes, because the client has it already."""
        self._skipped[id_] = None
        if len(self._skipped) > _MOST_SKIPPED:
            del self._skipped[next(iter(self._skipped))]

    def forget(self, id_: str) -> None:
        """This stored broadcast will not come."""
        self._skipped.pop(id_, None)

    def forget_all(self) -> None:
        """No stored broadcast will come any more."""
        self._skipped.clear()

    def answered(self, replayed: frozenset[str], *, may_receive: bool = True) -> None:
        """The join is answered, and these stored broadcasts were sent with the reply. Without
        `may_receive` the broadcasts that came before the reply are dropped."""
        pending, self.broadcast_outlet = self.broadcast_outlet, self.outlet
        if not may_receive:
            return
        for id_ in replayed:
            self.skip(id_)
        if isinstance(pending, PendingBroadcasts):
            for id_, frame in pending.frames:
                self.hear(frame, id_)

    def takes_more(self) -> bool:
        """Whether the client has taken most of what was delivered on its socket."""
        return self.outlet.takes_more()

    async def writable(self) -> None:
        """Wait until the client has taken most of what was delivered."""
        await self.outlet.writable()

    def resubscribed(self) -> None:
        """The rows that the channel's subject may see have changed."""
        self._socket.perform(self._socket.session.notices.resubscribed(self._channel))

    def caught_up(self, at: Position) -> None:
        """Everything since the channel's cursors was delivered."""
        self._socket.perform(self._socket.session.notices.caught_up(self._channel, at))

    def snapshot_begins(self, at: Position, keys: Sequence[TableKey]) -> None:
        """The rows of the channel's snapshots, as of this position, follow; `keys` are those of
        their tables."""
        notices = self._socket.session.notices
        self._socket.perform(notices.snapshot_begins(self._channel, at, keys))

    def snapshot(self, at: Position, count: int, complete: bool) -> None:
        """The rows of the channel's snapshots were delivered."""
        notices = self._socket.session.notices
        self._socket.perform(notices.snapshot(self._channel, at, count, complete))

    def resync(self, at: Position) -> None:
        """Events are lost to the channel."""
        self._socket.perform(self._socket.session.notices.resync(self._channel, at))

    def permitted(self, rights: TopicRights) -> None:
        """The rights of the channel's subject on its private topic, from here on."""
        self._socket.permit(self._channel, rights)

    def binding_ended(self, problem: str, *, working: bool) -> None:
        """A binding of the channel delivers nothing any more; `working` if another one does."""
        notices = self._socket.session.notices
        self._socket.perform(notices.binding_ended(self._channel, problem, working=working))

    def revoked(self) -> None:
        """The channel's user was deactivated or deleted."""
        self._socket.close(CloseCode.TOKEN_REFUSED)
