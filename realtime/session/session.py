"""The state of one socket: (message, now) in, effects out.

Pure: no await, no clock, no Django. The consumer performs the effects and reports back with
`joined`, `refused`, `renewed` and `ended`; anything that was overtaken meanwhile (the client left,
or joined the topic again) is recognised by the identity of its `Channel` and undone.
Time is in seconds; `now` for limits and silence, `wall` (since 1970) for token expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from realtime.client_limits import Bounds
from realtime.event_log.position import Position
from realtime.protocol import errors, serializer
from realtime.protocol.errors import CloseCode, WireError
from realtime.protocol.join import parse_join, token_in
from realtime.protocol.serializer import PREFIX, ClientMessage, FrameError, Version
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Close, Effect, Join, Leave, Note, Renew, Send
from realtime.session.quotas import Quota, QuotaChain
from realtime.session.replies import Replies
from realtime.session.topic_events import TopicEvents
from realtime.topics.rights import TopicRights
from realtime.util.token_bucket import Rate, TokenBucket

SILENCE_SECONDS = 60.0
PRESENCE_SECONDS = 30.0
LONGEST_TOPIC = 1_024


@dataclass(slots=True)
class Session:
    """Every channel of one socket, and what the client has been up to.

    `shared` are the quotas that the connection has in common with others.
    """

    version: Version
    bounds: Bounds
    position: Callable[[], Position | None]
    last_seen: float
    channels: dict[str, Channel] = field(default_factory=dict)
    closing: bool = False
    shared: Sequence[Quota] = ()
    #: What the client says on its topics.
    speaker: TopicEvents = field(init=False)
    _purse: QuotaChain = field(init=False)
    _says: Replies = field(init=False)

    def __post_init__(self) -> None:
        self._says = Replies(self.version)
        self._purse = QuotaChain(Quota(self.bounds.rates), *self.shared)
        self.speaker = TopicEvents(self._says, self._purse, self.bounds.payload_bytes)

    # --- from the client ------------------------------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> list[Effect]:
        """One WebSocket message. A malformed one is answered and changes nothing."""
        if self.closing:
            return []
        self.last_seen = now
        limit = self.bounds.frame_bytes
        # A text is measured in characters first: it has at least as many bytes.
        if limit is not None and (
            len(data) > limit or (isinstance(data, str) and _size(data) > limit)
        ):
            return self._close(CloseCode.FRAME_TOO_LARGE, "frame_bytes/connection")
        # Far above what any use needs, so there is nobody to answer.
        if scope := self._purse.message(now):
            return self._close(CloseCode.TOO_MANY, f"messages_per_second/{scope}")
        if scope := self._purse.data(now, len(data)):
            return self._close(CloseCode.TOO_MANY, f"bytes_per_second/{scope}")
        try:
            frame = serializer.decode(self.version, data)
        except FrameError as error:
            text = self._says.system("phoenix", None, "error", "system", f"Bad frame: {error}")
            return [Note("bad_frame", str(error)), text]
        if frame.topic == "phoenix":
            return self._phoenix(frame)
        if frame.event == "phx_join":
            return self._join(frame, now)
        if frame.event == "phx_leave":
            return self._leave(frame)
        channel = self.channels.get(frame.topic)
        if channel is None:
            return self._says.fail(frame, WireError.UNMATCHED_TOPIC.response())
        event = frame.event.lower()
        if event == "access_token":
            return self._access_token(channel, frame, now)
        if event == "broadcast":
            return self.speaker.broadcast(channel, frame, now)
        if event == "presence":
            return self.speaker.presence(channel, frame, now)
        return self._says.fail(frame, {"reason": f"unknown event {frame.event!r}"})

    def _phoenix(self, frame: ClientMessage) -> list[Effect]:
        if frame.event != "heartbeat":
            return self._says.fail(frame, WireError.UNMATCHED_TOPIC.response())
        at = self.position()
        # No place is named while a channel has not been served all up to it.
        named = {} if at is None or self._joining() else {"epoch": at.epoch, "seq": at.seq}
        return [self._says.reply(frame, "ok", named)]

    def _joining(self) -> bool:
        return any(
            channel.phase is Phase.JOINING and channel.config.bindings
            for channel in self.channels.values()
        )

    def _join(self, frame: ClientMessage, now: float) -> list[Effect]:
        if not frame.topic.startswith(PREFIX):
            reply = ClientMessage(None, frame.ref, frame.topic, frame.event, frame.payload)
            return self._says.fail(reply, WireError.UNMATCHED_TOPIC.response())
        if frame.topic == PREFIX:
            return self._says.fail(frame, WireError.TOPIC_NAME_REQUIRED.response())
        if len(frame.topic) > len(PREFIX) + LONGEST_TOPIC:
            # Nothing of it is repeated, and nothing is logged of it.
            return self._says.fail(
                frame, WireError.TOPIC_NAME_TOO_LONG.response(most=LONGEST_TOPIC)
            )
        if scope := self._purse.join(now):
            return self._says.over(frame, WireError.TOO_MANY_JOINS, scope)
        effects: list[Effect] = []
        old = self.channels.get(frame.topic)
        if old is not None:
            # The old instance goes under its own join_ref. Without one on the wire (V1) a client
            # would take the close for the new instance's, so there it goes silently.
            effects += self._drop(old)
            if self.version is Version.V2:
                effects.append(self._says.lifecycle(old, "phx_close"))
        limit = self.bounds.channels
        if limit is not None and len(self.channels) >= limit:
            return [*effects, *self._says.refuse(frame, WireError.TOO_MANY_CHANNELS)]
        config = parse_join(frame.fields)
        if self.bounds.private_only and not config.private:
            return [*effects, *self._says.refuse(frame, WireError.PRIVATE_ONLY)]
        if config.replay is not None and not config.private:
            return [*effects, *self._says.refuse(frame, WireError.REPLAY_PUBLIC)]
        if config.replay is not None and config.replay.since is None:
            return [*effects, *self._says.refuse(frame, WireError.REPLAY_INVALID)]
        channel = Channel(
            topic=frame.topic,
            join_ref=frame.join_ref if frame.join_ref is not None else frame.ref,
            join_reply_ref=frame.ref,
            config=config,
            token=config.access_token,
            presence_limit=TokenBucket(
                Rate.per_window(self.bounds.presence_per_30_seconds, PRESENCE_SECONDS)
            ),
            watching=config.presence_enabled,
            key=config.presence_key,
        )
        self.channels[frame.topic] = channel
        return [*effects, Join(channel)]

    def _leave(self, frame: ClientMessage) -> list[Effect]:
        channel = self.channels.get(frame.topic)
        reply = self._says.reply(frame, "ok", {})
        if channel is None:
            return [reply]
        if frame.join_ref is not None and frame.join_ref != channel.join_ref:
            # A late leave of an instance that a rejoin has already replaced.
            return [reply]
        return [*self._drop(channel), reply, self._says.lifecycle(channel, "phx_close")]

    def _access_token(self, channel: Channel, frame: ClientMessage, now: float) -> list[Effect]:
        token = token_in(frame.fields)
        if token is None or token == channel.token:
            return []
        if scope := self._purse.renew(now):
            return self._says.over(frame, WireError.TOO_MANY_JOINS, scope)
        channel.token = token
        if channel.phase is Phase.JOINING:
            return []
        return [Renew(channel, token)]

    # --- from the shell -------------------------------------------------------------------------

    def joined(
        self,
        channel: Channel,
        *,
        bindings: Sequence[Mapping[str, Any]],
        problems: Sequence[str],
        expires_at: float | None,
        at: Position,
        rights: TopicRights,
        replayed: Sequence[str | bytes] = (),
        presence: bytes = b"{}",
    ) -> list[Effect]:
        """The channel is subscribed from `at` on. `bindings` is the echo, in order; `problems`
        are texts of bindings that can never deliver; `replayed` are frames of stored broadcasts;
        `presence` is the payload of its `presence_state`, if it is told one."""
        if self.channels.get(channel.topic) is not channel:
            return [Leave(channel)]
        channel.phase = Phase.JOINED
        channel.expires_at = expires_at
        channel.rights = rights
        response = {"postgres_changes": list(bindings), "epoch": at.epoch, "seq": at.seq}
        effects: list[Effect] = [self._says.join_reply(channel, "ok", response)]
        effects += map(Send, replayed)
        effects += self.presence(channel, presence)
        if channel.config.replication_ready:
            text = errors.REPLICATION_READY
            effects.append(self._says.system(channel.name, channel, "ok", "system", text))
        return effects + self._says.subscribed(
            channel, problems, working=len(bindings) > len(problems)
        )

    def refused(self, channel: Channel, reason: str, limit: str = "") -> list[Effect]:
        """The channel may not be joined."""
        if self.channels.get(channel.topic) is not channel:
            return []
        self._drop(channel)
        return [
            Note("join_refused", f"{channel.topic}: {reason}", limit),
            self._says.join_reply(channel, "error", {"reason": reason}),
        ]

    def presence(self, channel: Channel, state: bytes) -> list[Effect]:
        """Tell the channel who is present, if it wants to know and may."""
        if self.channels.get(channel.topic) is not channel:
            return []
        if not (channel.watching and channel.rights.view):
            return []
        # Sent even when empty: the JavaScript client holds back every diff until it has it.
        return [self._says.push(channel, "presence_state", msgspec.Raw(state))]

    def permitted(self, channel: Channel, rights: TopicRights) -> list[Effect]:
        """What the channel's subject may do on a private topic has changed."""
        if self.channels.get(channel.topic) is not channel or channel.phase is not Phase.JOINED:
            return []
        saw = channel.watching and channel.rights.view
        channel.rights = rights
        if not rights.join:
            return self.ended(channel, WireError.PERMISSION_LOST.text(topic=channel.name))
        if saw and not rights.view:
            # It hears of nobody's leaving any more: whom it knew of would be there for ever.
            return [self._says.push(channel, "presence_state", {})]
        return []

    def renewed(
        self, channel: Channel, *, problems: Sequence[str], expires_at: float | None
    ) -> list[Effect]:
        """The channel is subscribed anew, as another subject."""
        if self.channels.get(channel.topic) is not channel:
            return [Leave(channel)]
        channel.expires_at = expires_at
        bindings = len(channel.config.bindings)
        return self._says.subscribed(channel, problems, working=bindings > len(problems))

    def resubscribed(self, channel: Channel) -> list[Effect]:
        """What the channel's subject may see has changed."""
        if self.channels.get(channel.topic) is not channel or channel.phase is not Phase.JOINED:
            return []
        return self._says.subscribed(channel, (), working=True)

    def resync(self, channel: Channel, at: Position) -> list[Effect]:
        """Events were lost to this channel for good: it must read its rows again."""
        if self.channels.get(channel.topic) is not channel or not channel.config.bindings:
            return []
        return [self._says.placed(channel, "resume", "resync required", at)]

    def caught_up(self, channel: Channel, at: Position) -> list[Effect]:
        """The channel has everything since its cursors."""
        if self.channels.get(channel.topic) is not channel:
            return []
        return [self._says.placed(channel, "resume", "caught up", at)]

    def snapshot(self, channel: Channel, at: Position, count: int, complete: bool) -> list[Effect]:
        """The channel has the rows of its snapshots, or as many as it may."""
        if self.channels.get(channel.topic) is not channel:
            return []
        message = "snapshot complete" if complete else "snapshot truncated"
        return [self._says.placed(channel, "snapshot", message, at, count=count)]

    def ended(self, channel: Channel, message: str) -> list[Effect]:
        """The channel ends by phx_error, after which clients rejoin with what they then have."""
        if self.channels.get(channel.topic) is not channel:
            return []
        if channel.phase is Phase.JOINING:
            return self.refused(channel, message)
        system = self._says.system(channel.name, channel, "error", "system", message)
        error = self._says.lifecycle(channel, "phx_error")
        return [Note("channel_ended", message), *self._drop(channel), system, error]

    def close(self, code: CloseCode) -> list[Effect]:
        """The socket ends, for a reason that lies outside it."""
        return [] if self.closing else self._close(code)

    def disconnect(self) -> list[Effect]:
        """The server stops: each channel is told, then the socket ends with 1012."""
        if self.closing:
            return []
        told: list[Effect] = [
            self._says.system(channel.name, channel, "ok", "system", errors.DISCONNECT)
            for channel in self.channels.values()
            if channel.phase is Phase.JOINED
        ]
        return [*told, *self._close(CloseCode.RESTART)]

    def tick(self, now: float, wall: float) -> list[Effect]:
        """Time has passed: end what is over."""
        if self.closing:
            return []
        if now - self.last_seen >= SILENCE_SECONDS:
            return self._close(CloseCode.NO_HEARTBEAT)
        effects: list[Effect] = []
        for channel in list(self.channels.values()):
            if channel.expires_at is not None and channel.expires_at <= wall:
                seconds = int(wall - channel.expires_at)
                effects += self.ended(channel, f"Token has expired {seconds} seconds ago")
        return effects

    def due_in(self, now: float, wall: float) -> float:
        """Seconds until `tick` has something to do, unless the client is heard of before."""
        due = self.last_seen + SILENCE_SECONDS - now
        for channel in self.channels.values():
            if channel.expires_at is not None:
                due = min(due, channel.expires_at - wall)
        return max(due, 0.0)

    # --- frames ---------------------------------------------------------------------------------

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


def _size(text: str) -> int:
    """How many bytes a text is on the wire."""
    return len(text.encode(errors="surrogatepass"))
