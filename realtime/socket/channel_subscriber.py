"""A joined channel of a socket, as the dispatcher sees it: somewhere to deliver to."""

from __future__ import annotations

from typing import Protocol

from realtime.delivery.outbox import Outbox, Outgoing, Sink
from realtime.event_log.position import Position
from realtime.protocol.errors import CloseCode
from realtime.session.channel import Channel
from realtime.session.effects import Effect
from realtime.session.session import Session
from realtime.topics.rights import TopicRights


class Socket(Protocol):
    """What a port needs of the consumer it belongs to."""

    session: Session
    outbox: Outbox

    def perform(self, effects: list[Effect]) -> None: ...
    def permit(self, channel: Channel, rights: TopicRights) -> None: ...
    def close(self, code: CloseCode) -> None: ...


class PendingBroadcasts:
    """Broadcasts that come before the join is answered, with the ids of those that are stored."""

    __slots__ = ("frames",)

    direct = None

    def __init__(self) -> None:
        self.frames: list[tuple[str, Outgoing]] = []

    def put(self, frame: Outgoing) -> None:
        """Keep one that is stored nowhere."""
        self.hold(frame, "")

    def hold(self, frame: Outgoing, id_: str) -> None:
        """Keep one that is stored."""
        self.frames.append((id_, frame))


class ChannelSubscriber:
    """One per joined channel. `id` is unique over all processes."""

    __slots__ = (
        "_channel",
        "_passed_over",
        "_socket",
        "casts",
        "id",
        "outlet",
        "topic",
        "user_id",
        "version",
    )

    def __init__(
        self, socket: Socket, channel: Channel, id_: str, user_id: str | None = None
    ) -> None:
        self._socket = socket
        self._channel = channel
        #: Takes frames of row changes, and whatever else; never waits.
        self.outlet = socket.outbox
        #: Takes broadcasts that are stored nowhere: the outlet once the join is answered.
        self.casts: Sink = PendingBroadcasts()
        self.id = id_
        #: Whom the channel asks as, if anybody.
        self.user_id = user_id
        self.topic = channel.topic
        self.version = socket.session.version
        # Stored ones that are not for this channel when the log tells of them.
        self._passed_over: set[str] = set()

    def hear(self, frame: Outgoing, id_: str) -> None:
        """Queue a stored broadcast, unless it is one to pass over."""
        if isinstance(self.casts, PendingBroadcasts):
            self.casts.hold(frame, id_)
        elif id_ in self._passed_over:
            self._passed_over.discard(id_)
        else:
            self.outlet.put(frame)

    def pass_over(self, id_: str) -> None:
        """Do not queue this stored broadcast when it comes: the channel sent it itself."""
        self._passed_over.add(id_)

    def answered(self, replayed: frozenset[str]) -> None:
        """The join is answered, and these stored broadcasts were sent with it."""
        held, self.casts = self.casts, self.outlet
        self._passed_over |= replayed
        if isinstance(held, PendingBroadcasts):
            for id_, frame in held.frames:
                self.hear(frame, id_)

    async def writable(self) -> None:
        """Wait until the client has taken most of what was delivered."""
        await self.outlet.writable()

    def resubscribed(self) -> None:
        """What the channel's subject may see has changed."""
        self._socket.perform(self._socket.session.resubscribed(self._channel))

    def caught_up(self, at: Position) -> None:
        """All that came since the channel's cursors was delivered."""
        self._socket.perform(self._socket.session.caught_up(self._channel, at))

    def snapshot(self, at: Position, count: int, complete: bool) -> None:
        """The rows of the channel's snapshots were delivered."""
        self._socket.perform(self._socket.session.snapshot(self._channel, at, count, complete))

    def resync(self, at: Position) -> None:
        """Events are lost to the channel."""
        self._socket.perform(self._socket.session.resync(self._channel, at))

    def permitted(self, rights: TopicRights) -> None:
        """What the channel's subject may do on its private topic, now."""
        self._socket.permit(self._channel, rights)

    def revoked(self) -> None:
        """The channel's user may not ask any more."""
        self._socket.close(CloseCode.TOKEN_REFUSED)
