"""A joined channel of a socket, as the dispatcher sees it: somewhere to deliver to."""

from __future__ import annotations

from typing import Protocol

from realtime.effects import Channel, Effect, Position
from realtime.errors import CloseCode
from realtime.outbox import Outbox
from realtime.session import Session


class Socket(Protocol):
    """What a port needs of the consumer it belongs to."""

    session: Session
    outbox: Outbox

    def perform(self, effects: list[Effect]) -> None: ...
    def close(self, code: CloseCode) -> None: ...


class ChannelPort:
    """One per joined channel. `id` is unique over all processes."""

    __slots__ = ("_channel", "_outbox", "_socket", "id", "topic", "version")

    def __init__(self, socket: Socket, channel: Channel, id_: str) -> None:
        self._socket = socket
        self._channel = channel
        self._outbox = socket.outbox
        self.id = id_
        self.topic = channel.topic
        self.version = socket.session.version

    def deliver(self, frame: str | bytes) -> None:
        """Queue a frame; never waits."""
        self._outbox.put(frame)

    async def writable(self) -> None:
        """Wait until the client has taken most of what was delivered."""
        await self._outbox.writable()

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

    def revoked(self) -> None:
        """The channel's user may not ask any more."""
        self._socket.close(CloseCode.TOKEN_REFUSED)
