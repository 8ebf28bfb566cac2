"""What the channels of one socket say and hear on their topics: broadcasts, presence, and what they
may do there.

Performs the session's effects that concern topics; joins and tokens are `joiner`'s.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from realtime import conf
from realtime.process.hub import Hub
from realtime.session.channel import Channel
from realtime.session.effects import Effect, SendBroadcast, Track
from realtime.session.session import Session
from realtime.socket.channel_subscriber import ChannelSubscriber
from realtime.topics.broadcast import Broadcast
from realtime.topics.frames import of_replayed
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.store import PresenceRow
from realtime.topics.rights import TopicRights
from realtime.topics.stored import store, stored
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread


class Socket(Protocol):
    """What is needed of the consumer."""

    session: Session

    def perform(self, effects: list[Effect]) -> None: ...
    def start(self, work: Any, channel: Channel) -> None: ...


class TopicHandler:
    """One per socket. `ports` are those of its joined channels, kept by the consumer."""

    def __init__(
        self, socket: Socket, hub: Hub, ports: Mapping[Channel, ChannelSubscriber]
    ) -> None:
        self._socket = socket
        self._hub = hub
        self._ports = ports

    async def replayed(self, channel: Channel) -> dict[str, str | bytes]:
        """Stored broadcasts for a channel that asks for them, by id."""
        replay = channel.config.replay
        assert replay is not None and replay.since is not None
        alias = conf.current().DATABASE
        casts = await in_database_thread(stored, alias, channel.name, replay.since, replay.limit)
        found = {
            cast.id: of_replayed(cast, self._socket.session.version, channel.join_ref)
            for cast in casts
        }
        return {id_: frame for id_, frame in found.items() if frame is not None}

    def permit(self, channel: Channel, rights: TopicRights) -> None:
        """What the channel's subject may do on its private topic, from here on."""
        self._socket.perform(self._socket.session.permitted(channel, rights))
        port = self._ports.get(channel)
        if port is None:
            return
        dispatcher, room = self._hub.dispatcher, (channel.name, channel.config.private)
        if rights.receive:
            dispatcher.topics.join(port, *room)
        else:
            dispatcher.topics.leave(port)
        if not rights.view:
            dispatcher.presence.leave(port)
        elif channel.watching and not dispatcher.presence.watches(port):
            self._socket.start(self.watch(channel), channel)
        if not rights.track:
            self._hub.presence.untrack(port.id)

    async def watch(self, channel: Channel) -> None:
        presence, room = self._hub.dispatcher.presence, (channel.name, channel.config.private)
        async with presence.hold(*room):
            port = self._ports.get(channel)
            if port is None or not channel.rights.view or presence.watches(port):
                return
            self._socket.perform(self._socket.session.presence(channel, presence.join(port, *room)))

    def track(self, effect: Track) -> None:
        channel = effect.channel
        port = self._ports.get(channel)
        if port is None:
            return

        def told(problem: str | None) -> None:
            self._socket.perform(self._socket.session.speaker.tracked(effect, problem))

        if effect.meta is None:
            self._hub.presence.untrack(port.id, told)
            return
        self._hub.presence.track(
            PresenceRow(
                PresenceMeta(port.id, 0, channel.key, effect.meta),
                channel.name,
                channel.config.private,
                port.user_id,
            ),
            told,
        )

    def broadcast(self, effect: SendBroadcast) -> None:
        channel = effect.channel
        port = self._ports.get(channel)
        origin = "" if channel.config.broadcast_self or port is None else port.id
        cast = Broadcast(
            topic=channel.name,
            private=channel.config.private,
            event=effect.event,
            payload=effect.payload,
            encoding=int(effect.encoding),
            origin=origin,
        )
        if effect.persist and port is not None:
            self._socket.start(self._store(effect, port, cast), channel)
            return
        self._socket.perform(
            self._socket.session.speaker.relayed(effect, self._hub.broadcast(cast))
        )

    async def _store(self, effect: SendBroadcast, port: ChannelSubscriber, cast: Broadcast) -> None:
        cast = msgspec.structs.replace(cast, id=str(uuid.uuid4()))
        if not effect.channel.config.broadcast_self:
            port.pass_over(cast.id)
        try:
            await in_database_thread(store, cast)
        except (ValueError, *DATABASE_ERRORS) as error:
            detail = str(error).partition("\n")[0]
            self._socket.perform(self._socket.session.speaker.not_stored(effect, detail))
        else:
            self._socket.perform(self._socket.session.speaker.relayed(effect, True, cast.id))
