"""How the channels of a socket are subscribed: joins, and tokens that replace others.

Performs the effects of the session that concern the subject of a channel. Broadcasts and presence
are in `topic_handler`. Failures are raised; the connection then ends the channel, or the socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import ExpiredToken, TokenError
from realtime.process import token_list
from realtime.process.connection_monitor import Monitored
from realtime.process.hub import Hub
from realtime.protocol.errors import SUBSCRIBED, WireError
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Renew
from realtime.socket import credentials
from realtime.socket.channel_subscriber import ChannelSubscriber, Socket
from realtime.socket.handshake import Admitted
from realtime.socket.subject_mark import subject_mark
from realtime.socket.topic_handler import TopicHandler
from realtime.subscriptions.request import Request, Revoked
from realtime.subscriptions.subscriber import Subscribed
from realtime.topics.rights import ALL, TopicRights
from realtime.util.payer_queue import Payer


@dataclass(frozen=True, slots=True)
class _Admission:
    """A permitted join: its token, its request, and the rights of its subject on the topic."""

    token: str | None
    request: Request
    rights: TopicRights


class Joiner:
    """Joins the channels of one socket. `subscribers` holds its joined channels: the joiner adds
    them, and the connection removes them."""

    __slots__ = (
        "_address",
        "_admitted",
        "_admitted_at",
        "_api_keys",
        "_hub",
        "_loop",
        "_perform",
        "_session",
        "_socket",
        "_subscribers",
        "_topics",
    )

    def __init__(
        self,
        socket: Socket,
        hub: Hub,
        subscribers: dict[Channel, ChannelSubscriber],
        topics: TopicHandler,
        admitted: Admitted,
        admitted_at: int,
        api_keys: Mapping[str, str],
        address: str = "",
    ) -> None:
        self._socket = socket
        self._session = socket.session
        self._perform = socket.perform
        self._hub = hub
        self._subscribers = subscribers
        self._topics = topics
        self._admitted = admitted
        self._admitted_at = admitted_at
        self._api_keys = api_keys
        self._address = address
        self._loop = asyncio.get_running_loop()

    async def join(self, channel: Channel) -> None:
        """Subscribe the channel and answer its join.

        Raises TokenError, Revoked, and what the database raises.
        """
        if self._hub.draining:
            self._perform(self._session.refused(channel, WireError.RESTARTING.reason()))
            return
        admission = await self._admit(channel)
        if admission is None or channel.phase is Phase.GONE:
            return
        await self._subscribe(channel, admission)

    async def _admit(self, channel: Channel) -> _Admission | None:
        """Whether the channel may be joined; None once its join is refused."""
        # Not one that has come meanwhile, which takes effect after the join.
        token = channel.config.access_token
        subject, read = await self._subject(token)
        now = self._loop.time()
        channel.quotas = self._hub.quotas_of(subject, now)
        if channel.quotas is not None and (scope := channel.quotas.join(now)):
            reason = WireError.TOO_MANY_JOINS.reason()
            self._perform(self._session.refused(channel, reason, f"joins_per_second/{scope}"))
            return None
        await self._hub.ready()
        request = self._request(channel, subject, read)
        rights = ALL
        if request.private is not None:
            rights = await self._hub.dispatcher.subscriptions.rights(request)
        if not rights.join:
            self._unauthorized(channel)
            return None
        return _Admission(token, request, rights)

    async def _subscribe(self, channel: Channel, admission: _Admission) -> None:
        dispatcher, rights = self._hub.dispatcher, admission.rights
        subject = admission.request.subject
        subscriber = ChannelSubscriber(self._socket, channel, self._hub.new_id(), _user_id(subject))
        self._subscribers[channel] = subscriber
        self._monitor(subscriber, subject)
        topic = (channel.name, channel.config.private)
        if rights.receive:
            # Before stored broadcasts are read, so that none is missed between the two.
            dispatcher.topics.join(subscriber, *topic)
        replayed: dict[str, str | bytes] = {}
        if channel.config.replay is not None and rights.receive:
            replayed = await self._topics.replayed(channel)
        shows = channel.shows_presence and rights.view
        async with dispatcher.presence.loaded(*topic) if shows else nullcontext():
            subscribed = await dispatcher.subscriptions.add(subscriber, admission.request)
            # Nothing is awaited from here to the answer, so that deliveries come behind it.
            if self._subscribers.get(channel) is not subscriber:
                self._hub.remove(subscriber)
            elif not subscribed.rights.join:
                self._unauthorized(channel)
            else:
                self._answer(channel, subscriber, admission, subscribed, replayed)

    def _answer(
        self,
        channel: Channel,
        subscriber: ChannelSubscriber,
        admission: _Admission,
        subscribed: Subscribed,
        replayed: Mapping[str, str | bytes],
    ) -> None:
        rights = subscribed.rights
        if not rights.receive:
            # They were collected by a right that the subject has lost since.
            replayed = {}
        presence = None
        if channel.shows_presence and admission.rights.view and rights.view:
            presence = self._hub.dispatcher.presence.join(
                subscriber, channel.name, channel.config.private
            )
        self._perform(
            self._session.joined(
                channel,
                problems=[text for text in subscribed.problems if text is not None],
                hints=self._hints(subscribed),
                expires_at=admission.request.subject.expires_at,
                at=subscribed.at,
                rights=rights,
                replayed=list(replayed.values()),
                presence=presence,
                subject=subject_mark(admission.request.subject),
            )
        )
        if channel.phase is Phase.GONE:
            # A join that waits for its bindings is refused for one that cannot deliver.
            return
        self._hub.counters.joins += 1
        subscriber.answered(frozenset(replayed), may_receive=rights.receive)
        if rights != admission.rights:
            self._topics.permit(channel, rights)
        if channel.expires_at is not None:
            self._socket.set_timer()
        if channel.token is None or channel.token == admission.token:
            self._perform(self._session.release(channel))
        else:
            # Another token came while the join was under way; what came behind it waits for it.
            self._perform(self._session.release(channel, channel.ahead_of_token))
            channel.renewing = True
            self._perform([Renew(channel, channel.token)])

    async def renew(self, channel: Channel, token: str) -> None:
        """Subscribe the channel as the subject of another token; does nothing for one that another
        has replaced. Raises as `join` does."""
        subscriber = self._subscribers.get(channel)
        if subscriber is None:
            return
        # One after the other, or one that took longer would take effect last.
        async with subscriber.renewal():
            if channel.token != token:
                return
            try:
                await self._renew(channel, subscriber, token)
            except TokenError:
                if channel.token == token:
                    raise
            if channel.token == token:
                self._perform(self._session.release(channel))

    async def _renew(self, channel: Channel, subscriber: ChannelSubscriber, token: str) -> None:
        subject, read = await self._subject(token)
        if self._subscribers.get(channel) is not subscriber:
            return
        channel.quotas = self._hub.quotas_of(subject, self._loop.time())
        request = self._request(channel, subject, read)
        subscribed = await self._hub.dispatcher.subscriptions.add(subscriber, request)
        if self._subscribers.get(channel) is not subscriber:
            self._hub.remove(subscriber)
            return
        subscriber.user_id = _user_id(subject)
        self._hub.presence.assign(subscriber.id, subscriber.user_id)
        self._monitor(subscriber, subject)
        self._topics.permit(channel, subscribed.rights)
        problems = [text for text in subscribed.problems if text is not None]
        self._perform(
            self._session.renewed(
                channel,
                problems=problems,
                expires_at=subject.expires_at,
                hints=self._hints(subscribed),
                subject=subject_mark(subject),
            )
        )
        self._socket.set_timer()

    def _hints(self, subscribed: Subscribed) -> Mapping[str, str]:
        """What may help, by the text of the `system` message that it goes with."""
        waiting = self._hub.numbering.hint
        return subscribed.hints if waiting is None else {**subscribed.hints, SUBSCRIBED: waiting}

    async def _subject(self, token: str | None) -> tuple[Subject, int]:
        """The subject of a channel, by its own token or else by the connection's credential; and
        the generation of permissions in which its user was read.

        Raises TokenError, and Revoked for a session that has ended.
        """
        read = self._hub.dispatcher.subscriptions.rebinding.generation
        if token is not None and token != self._admitted.token:
            subject = await credentials.identify_in_band(
                token, api_keys=self._api_keys, users=self._hub.dispatcher.subscriptions.users
            )
            return subject, read
        subject = self._admitted.subject
        if subject.expires_at is not None and subject.expires_at <= time.time():
            raise ExpiredToken(int(time.time() - subject.expires_at))
        held = self._admitted.session
        if held is not None:
            found = await self._hub.dispatcher.subscriptions.users.of_session(held.key)
            if found is None or found[1].user_key != held.user_key:
                raise Revoked
            return found[0], read
        if subject.expires_at is not None and any(await token_list.denied([subject.claims])):
            raise Revoked
        return subject, self._admitted_at

    def _monitor(self, subscriber: ChannelSubscriber, subject: Subject) -> None:
        # By the token of the channel. The credential of the connection is monitored beside it.
        monitor = self._hub.connection_monitor
        if subject.expires_at is None:
            # Nothing about a key can end, and a token that it replaced does not count any more.
            monitor.discard(subscriber)
        else:
            monitor.put(subscriber, Monitored(subject, None, subscriber.revoked))

    def _request(self, channel: Channel, subject: Subject, read: int) -> Request:
        private = channel.name if channel.config.private else None
        # Costs are charged to the user; without a user, to the connection.
        payer = Payer(self._address, _user_id(subject) or f"connection {id(self._session)}")
        return Request(subject, channel.config.bindings, private, read, payer)

    def _unauthorized(self, channel: Channel) -> None:
        reason = WireError.UNAUTHORIZED.reason(topic=channel.name)
        self._perform(self._session.refused(channel, reason))


def _user_id(subject: Subject) -> str | None:
    return None if subject.user_id is None else str(subject.user_id)
