"""The state of one socket: a message and the time in, effects out.

Pure: no await, no clock, no Django. The connection performs the effects and reports the results
with `joined`, `refused`, `renewed` and `ended`. A result may come late, after the client left or
joined the topic again: the identity of its `Channel` shows that, and the result is undone. Times
are in seconds: `now` is monotonic, for limits and silence; `wall` is since 1970, for tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType

import msgspec

from auth_rls.subjects.token_errors import ExpiredToken
from realtime.client_limits import Limits
from realtime.event_log.position import Position
from realtime.protocol import errors, serializer
from realtime.protocol.errors import CloseCode, WireError
from realtime.protocol.join import JoinConfig, read_join, token_in
from realtime.protocol.legacy_topic import binding_of
from realtime.protocol.serializer import PREFIX, ClientMessage, FrameError, Version
from realtime.session.binding_notices import BindingNotices
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Close, Effect, Join, Leave, Note, Renew, Send
from realtime.session.quotas import Quota, QuotaChain, Rates
from realtime.session.replies import Replies
from realtime.session.topic_events import TopicEvents
from realtime.topics.broadcast import LONGEST_TOPIC
from realtime.topics.rights import TopicRights
from realtime.util.interned import interned
from realtime.util.token_bucket import Rate, TokenBucket

SILENCE_SECONDS = 60.0
PRESENCE_SECONDS = 30.0
#: The most messages of a socket that wait for joins to be answered, and the most bytes of those
#: messages, of the joins and of later tokens.
MOST_PENDING = 200
MOST_BYTES = 4_194_304


def _nothing() -> None:
    return None


@dataclass(slots=True)
class Session:
    """The channels of one socket, its quotas, and when its client was last heard of.

    `position` says how far the socket has been served, None while a channel is catching up.
    `waiting` gives a hint while changes wait and no process numbers them, else None.
    `shared` are the quotas that the connection has in common with others. With `private_only`,
    joins of public topics are refused. `schemas` are those that a topic may name.
    """

    version: Version
    limits: Limits
    position: Callable[[], Position | None]
    last_seen: float
    channels: dict[str, Channel] = field(default_factory=dict)
    closing: bool = False
    waiting: InitVar[Callable[[], str | None]] = _nothing
    shared: Sequence[Quota] = ()
    private_only: bool = False
    schemas: Collection[str] = ("public",)
    #: Broadcasts and presence events of the client.
    topic_events: TopicEvents = field(init=False)
    #: What the client is told of the bindings of its channels.
    notices: BindingNotices = field(init=False)
    _quotas: QuotaChain = field(init=False)
    _replies: Replies = field(init=False)

    def __post_init__(self, waiting: Callable[[], str | None]) -> None:
        self._replies = Replies(self.version)
        self._quotas = QuotaChain(Quota(Rates.of(self.limits)), *self.shared)
        self.topic_events = TopicEvents(self._replies, self._quotas, self.limits)
        self.notices = BindingNotices(self._replies, waiting)

    # --- from the client ------------------------------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> list[Effect]:
        """Handle one WebSocket message. A malformed one gets a `system` error, nothing else."""
        if self.closing:
            return []
        self.last_seen = now
        limit = self.limits.frame_bytes
        # The characters of a text are counted first: it has at least as many bytes.
        if limit is not None and (
            len(data) > limit or (isinstance(data, str) and _size(data) > limit)
        ):
            return self._close(CloseCode.FRAME_TOO_LARGE, "frame_bytes/connection")
        # These limits are far above the needs of any client, so no reply explains them.
        if scope := self._quotas.message(now):
            return self._close(CloseCode.TOO_MANY, f"messages_per_second/{scope}")
        if scope := self._quotas.data(now, len(data)):
            return self._close(CloseCode.TOO_MANY, f"bytes_per_second/{scope}")
        try:
            message = serializer.decode(self.version, data, self.topic_events.most_bytes)
        except FrameError as error:
            text = self._replies.system("phoenix", None, "error", "system", f"Bad frame: {error}")
            return [Note("bad_frame", str(error)), text]
        if message.topic == "phoenix":
            return self._phoenix(message)
        if message.event == "phx_join":
            return self._join(message, len(data), now)
        if message.event == "phx_leave":
            return self._leave(message, len(data), now)
        channel = self.channels.get(message.topic)
        if channel is None:
            return self._replies.fail(message, WireError.UNMATCHED_TOPIC.response())
        if message.event.lower() == "access_token":
            return self._access_token(channel, message, now)
        if channel.phase is Phase.JOINING or channel.renewing:
            return self._defer(channel, message, len(data), now)
        return self._push(channel, message, now)

    def _push(self, channel: Channel, message: ClientMessage, now: float) -> list[Effect]:
        event = message.event.lower()
        if event == "broadcast":
            return self.topic_events.broadcast(channel, message, now)
        if event == "presence":
            return self.topic_events.presence(channel, message, now)
        return self._replies.fail(message, {"reason": f"unknown event {message.event!r}"})

    def _defer(
        self, channel: Channel, message: ClientMessage, size: int, now: float
    ) -> list[Effect]:
        """Keep a message until the join or the token before it takes effect: messages do so in
        order."""
        joining = [one for one in self.channels.values() if one.pending]
        count = sum(len(one.pending) for one in joining)
        # A leave waits only right behind another message, so there are no more of them.
        full = count >= MOST_PENDING and message.event != "phx_leave"
        if full or not self._has_room(size):
            return self.topic_events.too_many(channel, message)
        channel.pending.append((message, now, size))
        channel.size += size
        return []

    @property
    def size(self) -> int:
        """Bytes of the joins of this socket's channels, of the messages that wait for joins or
        tokens, and of later tokens. Their lengths as sent: many small values take more memory."""
        return sum(one.size for one in self.channels.values())

    def _has_room(self, size: int) -> bool:
        """Whether joins and pending messages of this socket may take so many bytes more."""
        return size + self.size <= MOST_BYTES

    def _phoenix(self, message: ClientMessage) -> list[Effect]:
        if message.event != "heartbeat":
            return self._replies.fail(message, WireError.UNMATCHED_TOPIC.response())
        at = self.position()
        # No position is given while a channel was not sent everything up to it.
        response = {} if at is None or self._joining() else {"epoch": at.epoch, "seq": at.seq}
        return [
            self._replies.reply(message, "ok", response),
            *self.notices.of_waiting(self.channels.values()),
        ]

    def _joining(self) -> bool:
        return any(
            channel.phase is Phase.JOINING and channel.config.bindings
            for channel in self.channels.values()
        )

    def _join(self, message: ClientMessage, size: int, now: float) -> list[Effect]:
        if not message.topic.startswith(PREFIX):
            reply = ClientMessage(None, message.ref, message.topic, message.event, message.payload)
            return self._replies.fail(reply, WireError.UNMATCHED_TOPIC.response())
        if message.topic == PREFIX:
            return self._replies.fail(message, WireError.TOPIC_NAME_REQUIRED.response())
        if len(message.topic) > len(PREFIX) + LONGEST_TOPIC:
            # No part of the name is repeated or logged.
            response = WireError.TOPIC_NAME_TOO_LONG.response(most=LONGEST_TOPIC)
            return self._replies.fail(message, response)
        if scope := self._quotas.join(now):
            return self._replies.over(message, WireError.TOO_MANY_JOINS, scope)
        effects = self._end_earlier_join(message.topic)
        named = binding_of(message.topic[len(PREFIX) :], self.schemas)
        config = read_join(message.fields, message.raw, named)
        refusal = self._refusal_of(config, size)
        if refusal is not None:
            return [*effects, *self._replies.refuse(message, refusal)]
        channel = Channel(
            topic=message.topic,
            join_ref=message.join_ref if message.join_ref is not None else message.ref,
            join_reply_ref=message.ref,
            config=config,
            token=config.access_token,
            presence_limit=TokenBucket(
                interned(Rate.per_window(self.limits.presence_per_30_seconds, PRESENCE_SECONDS))
            ),
            join_until=now + config.wait_timeout_ms / 1_000 if _waits(config) else None,
            size=size,
            shows_presence=config.presence_enabled,
            key=config.presence_key,
        )
        self.channels[message.topic] = channel
        return [*effects, Join(channel)]

    def _end_earlier_join(self, topic: str) -> list[Effect]:
        """A second join of a topic ends the first one, under the first one's join_ref."""
        earlier = self.channels.get(topic)
        if earlier is None:
            return []
        effects = [*self._drop(earlier), *self.release(earlier)]
        # V1 frames carry no join_ref: a client would take this close for one of the new join.
        if self.version is Version.V2:
            effects.append(self._replies.lifecycle(earlier, "phx_close"))
        return effects

    def _refusal_of(self, config: JoinConfig, size: int) -> WireError | None:
        """Why a join with this configuration is refused, as far as its shape decides."""
        limit = self.limits.channels_per_connection
        if (limit is not None and len(self.channels) >= limit) or not self._has_room(size):
            return WireError.TOO_MANY_CHANNELS
        if self.private_only and not config.private:
            return WireError.PRIVATE_ONLY
        if config.replay is not None and not config.private:
            return WireError.REPLAY_PUBLIC
        if config.replay is not None and config.replay.since is None:
            return WireError.REPLAY_INVALID
        return None

    def _leave(self, message: ClientMessage, size: int, now: float) -> list[Effect]:
        channel = self.channels.get(message.topic)
        reply = self._replies.reply(message, "ok", {})
        if channel is None:
            return [reply]
        if channel.pending and channel.pending[-1][0].event != "phx_leave":
            # Earlier messages have not taken effect yet.
            return self._defer(channel, message, size, now)
        if message.join_ref is not None and message.join_ref != channel.join_ref:
            # A late leave of an earlier join of this topic.
            return [reply]
        close = self._replies.lifecycle(channel, "phx_close")
        return [*self._drop(channel), *self.release(channel), reply, close]

    def _access_token(self, channel: Channel, message: ClientMessage, now: float) -> list[Effect]:
        token = token_in(message.fields)
        if token is None or token == channel.token:
            return []
        if scope := self._quotas.renew(now):
            return self._replies.over(message, WireError.TOO_MANY_JOINS, scope)
        more = len(token) - channel.token_size
        if more > 0 and not self._has_room(more):
            return self.topic_events.too_many(channel, message)
        channel.size += more
        channel.token_size += more
        channel.token = token
        if channel.phase is Phase.JOINING:
            if channel.ahead_of_token is None:
                channel.ahead_of_token = len(channel.pending)
            return []
        channel.renewing = True
        return [Renew(channel, token)]

    # --- from the connection --------------------------------------------------------------------

    def joined(
        self,
        channel: Channel,
        *,
        problems: Sequence[str],
        expires_at: float | None,
        at: Position,
        rights: TopicRights,
        subject: str,
        replayed: Sequence[str | bytes] = (),
        presence: bytes | None = b"{}",
        hints: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Effect]:
        """The channel is subscribed from `at` on.

        `problems` are the texts of bindings that can never deliver, and `hints` by these texts what
        may help; `replayed` are frames of stored broadcasts; `presence` is the payload of
        `presence_state`, which is sent only to a channel that shows presence and may see it, and
        None where it follows later;
        `subject` is the mark of the channel's subject. Call `release` afterwards.
        """
        if channel.phase is Phase.GONE:
            return [Leave(channel)]
        if problems and _waits(channel.config):
            # The reply to a join that waits says whether its bindings work.
            return self.refused(channel, WireError.CHANGES_REFUSED.reason(detail=problems[0]))
        channel.phase = Phase.JOINED
        channel.join_until = None
        channel.expires_at = expires_at
        channel.rights = rights
        config = channel.config
        response = {
            "postgres_changes": config.echoes,
            "epoch": at.epoch,
            "seq": at.seq,
            "subject": subject,
        }
        channel.config = config.answered()
        effects: list[Effect] = [self._replies.join_reply(channel, "ok", response)]
        effects += map(Send, replayed)
        if presence is not None:
            effects += self.presence(channel, presence)
        if config.replication_ready:
            text = errors.REPLICATION_READY
            effects.append(self._replies.system(channel.name, channel, "ok", "system", text))
        return effects + self.notices.subscribed(channel, problems, hints)

    def release(self, channel: Channel, most: int | None = None) -> list[Effect]:
        """Handle the messages that waited for the channel's join, or for its token: the first
        `most`, or all."""
        effects: list[Effect] = []
        channel.renewing = False
        pending, channel.pending = channel.pending, []
        for index, (message, then, size) in enumerate(pending):
            gone = channel.phase is Phase.GONE
            if not gone and most is not None and index >= most:
                channel.pending.append((message, then, size))
                continue
            channel.size -= size
            if gone and message.event == "phx_leave":
                effects.append(self._replies.reply(message, "ok", {}))
            elif gone:
                effects += self.topic_events.unmatched(channel, message)
            elif message.event == "phx_leave":
                effects += self._leave(message, size, then)
            else:
                effects += self._push(channel, message, then)
        return effects

    def refused(self, channel: Channel, reason: str, limit: str = "") -> list[Effect]:
        """The join is refused, for `reason`. `limit` is "<key of LIMITS>/<scope>" if that is the
        limit behind it."""
        if channel.phase is Phase.GONE:
            return []
        return [
            *self._drop(channel),
            Note("join_refused", f"{channel.topic}: {reason}", limit),
            self._replies.join_reply(channel, "error", {"reason": reason}),
            *self.release(channel),
        ]

    def presence(self, channel: Channel, state: bytes) -> list[Effect]:
        """Send `state` as `presence_state` to a channel that shows presence and may see it."""
        if channel.phase is Phase.GONE:
            return []
        if not (channel.shows_presence and channel.rights.view):
            return []
        # Sent even when empty: the JavaScript client keeps back every diff until it has this.
        return [self._replies.push(channel, "presence_state", msgspec.Raw(state))]

    def permitted(self, channel: Channel, rights: TopicRights) -> list[Effect]:
        """The rights of the channel's subject on its private topic have changed."""
        if channel.phase is not Phase.JOINED:
            return []
        saw = channel.shows_presence and channel.rights.view
        channel.rights = rights
        if not rights.join:
            return self.ended(channel, WireError.PERMISSION_LOST.text(topic=channel.name))
        if saw and not rights.view:
            # No leave reaches this channel any more, so its client forgets all members.
            return [self._replies.push(channel, "presence_state", {})]
        return []

    def renewed(
        self,
        channel: Channel,
        *,
        problems: Sequence[str],
        expires_at: float | None,
        subject: str,
        hints: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Effect]:
        """The channel is subscribed again, as the subject of another token, whose mark is
        `subject`. Call `release` afterwards, unless yet another one has come."""
        if channel.phase is Phase.GONE:
            return [Leave(channel)]
        channel.expires_at = expires_at
        return self.notices.subscribed(channel, problems, hints, subject)

    def ended(self, channel: Channel, message: str) -> list[Effect]:
        """End the channel by phx_error: clients rejoin it, with the token they then have."""
        if channel.phase is Phase.GONE:
            return []
        if channel.phase is Phase.JOINING:
            return self.refused(channel, message)
        system = self._replies.system(channel.name, channel, "error", "system", message)
        error = self._replies.lifecycle(channel, "phx_error")
        dropped = [*self._drop(channel), system, error, *self.release(channel)]
        return [Note("channel_ended", message), *dropped]

    def close(self, code: CloseCode) -> list[Effect]:
        """End the socket, for a reason outside it."""
        return [] if self.closing else self._close(code)

    def disconnect(self) -> list[Effect]:
        """The server stops: send a `system` message on each channel, then close with 1012."""
        if self.closing:
            return []
        messages: list[Effect] = [
            self._replies.system(channel.name, channel, "ok", "system", errors.DISCONNECT)
            for channel in self.channels.values()
            if channel.phase is Phase.JOINED
        ]
        return [*messages, *self._close(CloseCode.RESTART)]

    def tick(self, now: float, wall: float) -> list[Effect]:
        """End a silent socket, channels whose token has expired, and joins that waited too long."""
        if self.closing:
            return []
        if now - self.last_seen >= SILENCE_SECONDS:
            return self._close(CloseCode.NO_HEARTBEAT)
        effects: list[Effect] = []
        for channel in list(self.channels.values()):
            if channel.expires_at is not None and channel.expires_at <= wall:
                seconds = int(wall - channel.expires_at)
                effects += self.ended(channel, ExpiredToken(seconds).reason)
            elif channel.join_until is not None and channel.join_until <= now:
                timeout_ms = channel.config.wait_timeout_ms
                reason = WireError.CHANGES_TIMEOUT.reason(timeout_ms=timeout_ms)
                effects += self.refused(channel, reason)
        return effects

    def due_in(self, now: float, wall: float) -> float:
        """Seconds until `tick` has something to do, if the client sends nothing before."""
        due = self.last_seen + SILENCE_SECONDS - now
        for channel in self.channels.values():
            if channel.expires_at is not None:
                due = min(due, channel.expires_at - wall)
            if channel.join_until is not None:
                due = min(due, channel.join_until - now)
        return max(due, 0.0)

    # --- ends -----------------------------------------------------------------------------------

    def _close(self, code: CloseCode, limit: str = "") -> list[Effect]:
        self.closing = True
        dropped = [
            effect for channel in list(self.channels.values()) for effect in self._drop(channel)
        ]
        return [*dropped, Note("closed", code.meaning, limit), Close(code)]

    def _drop(self, channel: Channel) -> list[Effect]:
        channel.phase = Phase.GONE
        self.channels.pop(channel.topic, None)
        return [Leave(channel)]


def _waits(config: JoinConfig) -> bool:
    """Whether the reply depends on the bindings."""
    return config.wait and bool(config.bindings)


def _size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text.encode(errors="surrogatepass"))
