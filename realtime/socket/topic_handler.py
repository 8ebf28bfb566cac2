"""Topics of one socket: relays its broadcasts, tracks its presence, and applies its rights.

Performs the effects of the session that concern topics; joins and tokens are in `joiner`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from functools import partial

import msgspec

from auth_rls.sql.failures import public_reason
from realtime import conf
from realtime.process.hub import Hub
from realtime.session.channel import Channel
from realtime.session.effects import SendBroadcast, Track
from realtime.socket.channel_subscriber import ChannelSubscriber, Socket
from realtime.topics.broadcast import Broadcast, with_sender
from realtime.topics.frames import of_replayed
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.store import PresenceRow
from realtime.topics.rights import TopicRights
from realtime.topics.stored import store, stored
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger(__name__)

# What a database that is away, or refuses a value, raises.
_EXPECTED = (ValueError, *DATABASE_ERRORS)


class TopicHandler:
    """Handles the topics of `socket`; `subscribers` are those of its joined channels.

    Has no state of its own, and the socket keeps no reference to it: see `connection`.
    """

    __slots__ = ("_hub", "_socket", "_subscribers")

    def __init__(
        self, socket: Socket, hub: Hub, subscribers: Mapping[Channel, ChannelSubscriber]
    ) -> None:
        self._socket = socket
        self._hub = hub
        self._subscribers = subscribers

    async def replayed(self, channel: Channel) -> dict[str, str | bytes]:
        """The frames of the stored broadcasts that a channel asks for, by id."""
        replay = channel.config.replay
        assert replay is not None and replay.since is not None
        alias = conf.current().DATABASE
        replayed = await in_database_thread(stored, alias, channel.name, replay.since, replay.limit)
        found = {
            broadcast.id: of_replayed(broadcast, self._socket.session.version, channel.join_ref)
            for broadcast in replayed
        }
        return {id_: frame for id_, frame in found.items() if frame is not None}

    def permit(self, channel: Channel, rights: TopicRights) -> None:
        """Apply the rights of the channel's subject on its private topic, from here on."""
        self._socket.perform(self._socket.session.permitted(channel, rights))
        subscriber = self._subscribers.get(channel)
        if subscriber is None:
            return
        dispatcher, topic = self._hub.dispatcher, (channel.name, channel.config.private)
        if rights.receive:
            dispatcher.topics.join(subscriber, *topic)
        else:
            dispatcher.topics.leave(subscriber)
            subscriber.forget_all()
        if not rights.view:
            dispatcher.presence.leave(subscriber)
        elif channel.shows_presence and not dispatcher.presence.receives(subscriber):
            self._socket.start(partial(self.subscribe_presence, channel), channel)
        if not rights.track:
            self._hub.presence.untrack(subscriber.id)

    async def subscribe_presence(self, channel: Channel) -> None:
        """Subscribe the channel to presence, and send its `presence_state`."""
        presence, topic = self._hub.dispatcher.presence, (channel.name, channel.config.private)
        async with presence.loaded(*topic):
            subscriber = self._subscribers.get(channel)
            if subscriber is None or not channel.rights.view or presence.receives(subscriber):
                return
            self._socket.perform(
                self._socket.session.presence(channel, presence.join(subscriber, *topic))
            )

    def track(self, effect: Track) -> None:
        """Track or untrack the presence of a channel, then report it to the session."""
        channel = effect.channel
        subscriber = self._subscribers.get(channel)
        if subscriber is None:
            self._left(effect)
            return
        awaits_state = channel.shows_presence and channel.rights.view
        received = self._hub.dispatcher.presence.receives(subscriber)
        if not subscriber.waiting_tracks and (received or not awaits_state):
            self._track(effect, subscriber)
            return
        # Its `presence_state` is still being read and must be sent first, without the channel
        # itself, which then comes by a diff.
        subscriber.waiting_tracks.append(effect)
        if len(subscriber.waiting_tracks) == 1:
            self._socket.start(partial(self._track_waiting, channel, subscriber), channel)

    async def _track_waiting(self, channel: Channel, subscriber: ChannelSubscriber) -> None:
        try:
            await self.subscribe_presence(channel)
        except Exception as error:
            # The failure ends the channel.
            effects, subscriber.waiting_tracks = subscriber.waiting_tracks, []
            for effect in effects:
                topic_events = self._socket.session.topic_events
                self._socket.perform(topic_events.tracked(effect, _why(error)))
            raise
        effects, subscriber.waiting_tracks = subscriber.waiting_tracks, []
        for effect in effects:
            if self._subscribers.get(channel) is subscriber:
                self._track(effect, subscriber)
            else:
                self._left(effect)

    def _left(self, effect: Track) -> None:
        """Answer a message of a channel that has left before the message took effect."""
        topic_events = self._socket.session.topic_events
        self._socket.perform(topic_events.unmatched(effect.channel, effect.message))

    def _track(self, effect: Track, subscriber: ChannelSubscriber) -> None:
        channel, socket = effect.channel, self._socket

        def done(problem: str | None) -> None:
            socket.perform(socket.session.topic_events.tracked(effect, problem))

        if effect.meta is None:
            self._hub.presence.untrack(subscriber.id, done)
            return
        if not channel.rights.track:
            # The right was lost while the message waited.
            socket.perform(socket.session.topic_events.track_refused(effect))
            return
        # Most channels that have no key of their own never need one.
        channel.key = channel.key or str(uuid.uuid4())
        self._hub.presence.track(
            PresenceRow(
                PresenceMeta(subscriber.id, 0, channel.key, effect.meta),
                channel.name,
                channel.config.private,
                subscriber.user_id,
            ),
            done,
        )

    def broadcast(self, effect: SendBroadcast) -> None:
        """Relay a broadcast, or store it if it is to persist; then report it to the session."""
        channel = effect.channel
        subscriber = self._subscribers.get(channel)
        origin = "" if channel.config.broadcast_self or subscriber is None else subscriber.id
        private, payload = channel.config.private, effect.payload
        user_id = (subscriber.user_id if private and subscriber is not None else None) or ""
        if effect.event is None:
            payload = with_sender(payload, private, user_id)
        broadcast = Broadcast(
            topic=channel.name,
            private=private,
            event=effect.event,
            payload=payload,
            encoding=int(effect.encoding),
            origin=origin,
            user_id=user_id,
        )
        if effect.persist and subscriber is not None:
            self._socket.start(partial(self._store, effect, subscriber, broadcast), channel)
            return
        relayed = self._hub.broadcasts.put(broadcast)
        self._socket.perform(self._socket.session.topic_events.relayed(effect, relayed))

    async def _store(
        self, effect: SendBroadcast, subscriber: ChannelSubscriber, broadcast: Broadcast
    ) -> None:
        async with subscriber.storing():
            await self._store_now(effect, subscriber, broadcast)

    async def _store_now(
        self, effect: SendBroadcast, subscriber: ChannelSubscriber, broadcast: Broadcast
    ) -> None:
        topic_events = self._socket.session.topic_events
        if not effect.channel.rights.send:
            # The right was lost while the broadcast waited for earlier ones.
            self._socket.perform(topic_events.write_refused(effect))
            return
        broadcast = msgspec.structs.replace(broadcast, id=str(uuid.uuid4()))
        if not effect.channel.config.broadcast_self and effect.channel.rights.receive:
            subscriber.skip(broadcast.id)
        try:
            await in_database_thread(store, broadcast)
        except Exception as error:
            subscriber.forget(broadcast.id)
            logger.warning(
                "broadcast not stored: %s", error, extra={"action": "broadcast_not_stored"}
            )
            self._socket.perform(topic_events.not_stored(effect, _why(error)))
            if not isinstance(error, _EXPECTED):
                raise
        else:
            self._socket.perform(topic_events.relayed(effect, True, broadcast.id))


def _why(error: Exception) -> str:
    """What a client is told of a failure: of a fault of code nothing that the code said."""
    return public_reason(error) if isinstance(error, _EXPECTED) else "the server has failed"
