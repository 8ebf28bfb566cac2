"""How the channels of one socket come to be subscribed: joins, and tokens that replace others.

Performs the session's effects that concern who a channel asks as; what it says on its topic is
`talk`'s. What fails here is raised: the consumer ends the channel for it, or the socket.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack

from auth_rls.subjects.subject import Subject
from auth_rls.subjects.tokens import ExpiredToken
from realtime.process.hub import Hub
from realtime.protocol.errors import WireError
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Renew
from realtime.socket import credentials
from realtime.socket.channel_subscriber import ChannelSubscriber, Socket
from realtime.socket.handshake import Admitted
from realtime.socket.topic_handler import TopicHandler
from realtime.subscriptions.request import Request
from realtime.topics.rights import ALL
from realtime.util.database_threads import in_database_thread


class Joiner:
    """One per socket. `ports` are those of its joined channels: put in here, taken out by the
    consumer."""

    __slots__ = (
        "_admitted",
        "_admitted_at",
        "_api_keys",
        "_hub",
        "_loop",
        "_perform",
        "_ports",
        "_session",
        "_socket",
        "_talk",
    )

    def __init__(
        self,
        socket: Socket,
        hub: Hub,
        ports: dict[Channel, ChannelSubscriber],
        talk: TopicHandler,
        admitted: Admitted,
        admitted_at: int,
        api_keys: Mapping[str, str],
    ) -> None:
        self._socket = socket
        self._session = socket.session
        self._perform = socket.perform
        self._hub = hub
        self._ports = ports
        self._talk = talk
        self._admitted = admitted
        self._admitted_at = admitted_at
        self._api_keys = api_keys
        self._loop = asyncio.get_running_loop()

    async def join(self, channel: Channel) -> None:
        """Subscribe the channel and answer its join."""
        if self._hub.draining:
            self._perform(self._session.refused(channel, WireError.RESTARTING.reason()))
            return
        used = channel.token
        subject, read = await self._subject(used)
        now = self._loop.time()
        channel.quotas = self._hub.quotas_of(subject, now)
        if channel.quotas is not None and (scope := channel.quotas.join(now)):
            reason = WireError.TOO_MANY_JOINS.reason()
            self._perform(self._session.refused(channel, reason, f"joins_per_second/{scope}"))
            return
        await self._hub.ready()
        request = _request(channel, subject, read)
        dispatcher = self._hub.dispatcher
        rights = ALL
        if request.private is not None:
            rights = await dispatcher.subscribers.rights(request)
        if not rights.join:
            self._unauthorized(channel)
            return
        if channel.phase is Phase.GONE:
            return
        channel.key = channel.key or str(uuid.uuid4())
        port = ChannelSubscriber(self._socket, channel, self._hub.new_id(), _user_id(subject))
        self._ports[channel] = port
        room = (channel.name, channel.config.private)
        if rights.receive:
            # From before the stored ones are read, so that nothing falls between the two.
            dispatcher.topics.join(port, *room)
        replayed: dict[str, str | bytes] = {}
        if channel.config.replay is not None and rights.receive:
            replayed = await self._talk.replayed(channel)
        async with AsyncExitStack() as held:
            if channel.watching and rights.view:
                await held.enter_async_context(dispatcher.presence.hold(*room))
            subscribed = await dispatcher.subscribers.add(port, request)
            # From here to the answer nothing waits: what is delivered comes after it.
            if self._ports.get(channel) is not port:
                self._hub.remove(port)
                return
            if not subscribed.rights.join:
                self._unauthorized(channel)
                return
            presence = b"{}"
            if channel.watching and rights.view and subscribed.rights.view:
                presence = dispatcher.presence.join(port, *room)
            self._hub.counters.joins += 1
            self._perform(
                self._session.joined(
                    channel,
                    bindings=[binding.echo() for binding in channel.config.bindings],
                    problems=[text for text in subscribed.problems if text is not None],
                    expires_at=subject.expires_at,
                    at=subscribed.at,
                    rights=rights,
                    replayed=list(replayed.values()),
                    presence=presence,
                )
            )
            port.answered(frozenset(replayed))
            if subscribed.rights != rights:
                self._talk.permit(channel, subscribed.rights)
        self._socket.set_timer()
        if channel.token is not None and channel.token != used:
            self._perform([Renew(channel, channel.token)])

    async def renew(self, channel: Channel, token: str) -> None:
        """Subscribe the channel as the subject of another token."""
        subject, read = await self._subject(token)
        port = self._ports.get(channel)
        if port is None or channel.token != token:
            return
        channel.quotas = self._hub.quotas_of(subject, self._loop.time())
        request = _request(channel, subject, read)
        subscribed = await self._hub.dispatcher.subscribers.add(port, request)
        if self._ports.get(channel) is not port:
            self._hub.remove(port)
            return
        port.user_id = _user_id(subject)
        self._talk.permit(channel, subscribed.rights)
        problems = [text for text in subscribed.problems if text is not None]
        expires_at = subject.expires_at
        self._perform(self._session.renewed(channel, problems=problems, expires_at=expires_at))
        self._socket.set_timer()

    async def _subject(self, token: str | None) -> tuple[Subject, int]:
        """Whom a channel asks as: its own token's subject, else the connection's; and since which
        generation of permissions that is known.

        Raises TokenError.
        """
        if token is None or token == self._admitted.token:
            subject = self._admitted.subject
            if subject.expires_at is not None and subject.expires_at <= time.time():
                raise ExpiredToken(int(time.time() - subject.expires_at))
            return subject, self._admitted_at
        read = self._hub.dispatcher.subscribers.rebinding.generation
        subject = await in_database_thread(
            credentials.authenticate_in_band, token, api_keys=self._api_keys
        )
        return subject, read

    def _unauthorized(self, channel: Channel) -> None:
        reason = WireError.UNAUTHORIZED.reason(topic=channel.name)
        self._perform(self._session.refused(channel, reason))


def _request(channel: Channel, subject: Subject, read: int) -> Request:
    private = channel.name if channel.config.private else None
    return Request(subject, channel.config.bindings, private, read)


def _user_id(subject: Subject) -> str | None:
    return None if subject.user_id is None else str(subject.user_id)
