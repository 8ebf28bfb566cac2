"""The state of one socket: (message, now) in, effects out.

Pure: no await, no clock, no Django. The consumer performs the effects and reports back with
`joined`, `refused`, `renewed` and `ended`; anything that was overtaken meanwhile (the client left,
or joined the topic again) is recognised by the identity of its `Channel` and undone.
Time is in seconds; `now` for limits and silence, `wall` (since 1970) for token expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from realtime import errors, protocol, tracking
from realtime.answers import Answers
from realtime.effects import (
    PREFIX,
    Broadcast,
    Channel,
    Close,
    Effect,
    Join,
    Leave,
    Note,
    Phase,
    Position,
    Renew,
    Send,
    Track,
    WatchPresence,
)
from realtime.errors import CloseCode, WireError
from realtime.joins import parse_join, token_in
from realtime.limits import Rate, TokenBucket
from realtime.protocol import BinaryBroadcast, Encoding, Frame, FrameError, Version
from realtime.quotas import Purse, Quota, Rates
from realtime.rights import Rights

SILENCE_SECONDS = 60.0
PRESENCE_SECONDS = 30.0
LONGEST_TOPIC = 1_024


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits a session enforces; None switches one off."""

    channels: int | None = 100
    joins_per_second: float | None = 50
    broadcasts_per_second: float | None = 10
    broadcast_burst: float | None = 100
    presence_per_30_seconds: int | None = 30
    payload_bytes: int | None = 65_536
    frame_bytes: int | None = 1_048_576
    private_only: bool = False

    @property
    def rates(self) -> Rates:
        """How often one connection may do what."""
        return Rates.derive(
            joins_per_second=self.joins_per_second,
            channels=self.channels,
            broadcasts_per_second=self.broadcasts_per_second,
            broadcast_burst=self.broadcast_burst,
            presence_per_30_seconds=self.presence_per_30_seconds,
            payload_bytes=self.payload_bytes,
            frame_bytes=self.frame_bytes,
        )


# The names that limits have in the settings, where an error is about one.
_LIMITS = {
    WireError.TOO_MANY_CHANNELS: "channels_per_connection",
    WireError.TOO_MANY_JOINS: "joins_per_second",
    WireError.TOO_MANY_MESSAGES: "broadcasts_per_second",
    WireError.TOO_MANY_PRESENCE_MESSAGES: "presence_per_30_seconds",
    WireError.PAYLOAD_TOO_LARGE: "payload_bytes",
    WireError.TRACK_TOO_LARGE: "payload_bytes",
}


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
    _purse: Purse = field(init=False)
    _says: Answers = field(init=False)

    def __post_init__(self) -> None:
        self._says = Answers(self.version)
        self._purse = Purse(Quota(self.bounds.rates), *self.shared)

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
            frame = protocol.decode(self.version, data)
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
            return self._fail(frame, WireError.UNMATCHED_TOPIC.response())
        event = frame.event.lower()
        if event == "access_token":
            return self._access_token(channel, frame, now)
        if event == "broadcast":
            return self._broadcast(channel, frame, now)
        if event == "presence":
            return self._presence(channel, frame, now)
        return self._fail(frame, {"reason": f"unknown event {frame.event!r}"})

    def _phoenix(self, frame: Frame) -> list[Effect]:
        if frame.event != "heartbeat":
            return self._fail(frame, WireError.UNMATCHED_TOPIC.response())
        at = self.position()
        # No place is named while a channel has not been served all up to it.
        named = {} if at is None or self._joining() else {"epoch": at.epoch, "seq": at.seq}
        return [self._says.reply(frame, "ok", named)]

    def _joining(self) -> bool:
        return any(
            channel.phase is Phase.JOINING and channel.config.bindings
            for channel in self.channels.values()
        )

    def _join(self, frame: Frame, now: float) -> list[Effect]:
        if not frame.topic.startswith(PREFIX):
            reply = Frame(None, frame.ref, frame.topic, frame.event, frame.payload)
            return self._fail(reply, WireError.UNMATCHED_TOPIC.response())
        if frame.topic == PREFIX:
            return self._fail(frame, WireError.TOPIC_NAME_REQUIRED.response())
        if len(frame.topic) > len(PREFIX) + LONGEST_TOPIC:
            # Nothing of it is repeated, and nothing is logged of it.
            return self._fail(frame, WireError.TOPIC_NAME_TOO_LONG.response(most=LONGEST_TOPIC))
        if scope := self._purse.join(now):
            return self._over(frame, WireError.TOO_MANY_JOINS, scope)
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
            return [*effects, *self._refuse(frame, WireError.TOO_MANY_CHANNELS)]
        config = parse_join(frame.fields)
        if self.bounds.private_only and not config.private:
            return [*effects, *self._refuse(frame, WireError.PRIVATE_ONLY)]
        if config.replay is not None and not config.private:
            return [*effects, *self._refuse(frame, WireError.REPLAY_PUBLIC)]
        if config.replay is not None and config.replay.since is None:
            return [*effects, *self._refuse(frame, WireError.REPLAY_INVALID)]
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

    def _leave(self, frame: Frame) -> list[Effect]:
        channel = self.channels.get(frame.topic)
        reply = self._says.reply(frame, "ok", {})
        if channel is None:
            return [reply]
        if frame.join_ref is not None and frame.join_ref != channel.join_ref:
            # A late leave of an instance that a rejoin has already replaced.
            return [reply]
        return [*self._drop(channel), reply, self._says.lifecycle(channel, "phx_close")]

    def _access_token(self, channel: Channel, frame: Frame, now: float) -> list[Effect]:
        token = token_in(frame.fields)
        if token is None or token == channel.token:
            return []
        if scope := self._purse.renew(now):
            return self._over(frame, WireError.TOO_MANY_JOINS, scope)
        channel.token = token
        if channel.phase is Phase.JOINING:
            return []
        return [Renew(channel, token)]

    def _broadcast(self, channel: Channel, frame: Frame, now: float) -> list[Effect]:
        if channel.phase is not Phase.JOINED:
            return self._fail(frame, WireError.UNMATCHED_TOPIC.response())
        payload = frame.payload
        if isinstance(payload, BinaryBroadcast):
            event, body, encoding = payload.event, payload.payload, payload.encoding
            # Clients ask for it on private channels only.
            persist = channel.config.private and bool(payload.metadata.get("persist"))
        else:
            event, body, encoding, persist = None, frame.raw, Encoding.JSON, False
        if not channel.rights.send:
            return self._refuse(frame, WireError.WRITE_UNAUTHORIZED, topic=channel.name)
        limit = self.bounds.payload_bytes
        if limit is not None and len(body) > limit:
            return self._refuse(frame, WireError.PAYLOAD_TOO_LARGE)
        if scope := self._may_broadcast(channel, now):
            return self._over(frame, WireError.TOO_MANY_MESSAGES, scope)
        return [Broadcast(channel, event, body, encoding, frame, persist)]

    def _presence(self, channel: Channel, frame: Frame, now: float) -> list[Effect]:
        if channel.phase is not Phase.JOINED:
            return self._fail(frame, WireError.UNMATCHED_TOPIC.response())
        asked = frame.fields.get("event")
        event = asked.lower() if isinstance(asked, str) else ""
        if event not in ("track", "untrack"):
            reason = f"unknown presence event {asked!r}: expected track or untrack"
            return self._fail(frame, {"reason": reason})
        if scope := self._may_track(channel, now):
            return self._over(frame, WireError.TOO_MANY_PRESENCE_MESSAGES, scope)
        if event == "untrack":
            return [Track(channel, None, frame)]
        if not channel.rights.track:
            return self._refuse(frame, WireError.TRACK_UNAUTHORIZED, topic=channel.name)
        meta = tracking.judge(channel.key, frame.raw, self.bounds.payload_bytes)
        if isinstance(meta, tracking.Refused):
            return self._refuse(frame, meta.error, **meta.fields)
        effects: list[Effect] = [Track(channel, meta, frame)]
        if not channel.watching:
            # Who is present himself sees who else is.
            channel.watching = True
            if channel.rights.view:
                effects.insert(0, WatchPresence(channel))
        return effects

    def _may_broadcast(self, channel: Channel, now: float) -> str:
        """As a purse answers."""
        scope = self._purse.broadcast(now)
        if not scope and channel.purse is not None:
            scope = channel.purse.broadcast(now)
        return scope

    def _may_track(self, channel: Channel, now: float) -> str:
        if not channel.presence_limit.take(now):
            return "channel"
        # A channel that is joined again has a fresh limit; those it shares are as they were.
        scope = self._purse.presence(now)
        if not scope and channel.purse is not None:
            scope = channel.purse.presence(now)
        return scope

    # --- from the shell -------------------------------------------------------------------------

    def joined(
        self,
        channel: Channel,
        *,
        bindings: Sequence[Mapping[str, Any]],
        problems: Sequence[str],
        expires_at: float | None,
        at: Position,
        rights: Rights,
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
        return effects + self._subscribed(channel, problems, working=len(bindings) > len(problems))

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

    def broadcast(self, effect: Broadcast, taken: bool, stored: str | None = None) -> list[Effect]:
        """A broadcast was relayed (and stored, under this id), or there was no room for it."""
        if not taken:
            return self._over(effect.frame, WireError.TOO_MANY_MESSAGES, "process")
        if not effect.channel.config.broadcast_ack:
            return []
        return [self._says.reply(effect.frame, "ok", {"id": stored} if stored else {})]

    def not_stored(self, effect: Broadcast, detail: str) -> list[Effect]:
        """A broadcast could not be stored, so it was not sent either."""
        return self._refuse(effect.frame, WireError.BROADCAST_NOT_STORED, detail=detail)

    def tracked(self, effect: Track, problem: str | None = None) -> list[Effect]:
        """Everybody here has been told of a presence, or it could not be stored."""
        if self.channels.get(effect.channel.topic) is not effect.channel:
            return []
        if problem is not None:
            return self._refuse(effect.frame, WireError.TRACK_NOT_STORED, detail=problem)
        return [] if effect.frame.ref is None else [self._says.reply(effect.frame, "ok", {})]

    def permitted(self, channel: Channel, rights: Rights) -> list[Effect]:
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
        return self._subscribed(channel, problems, working=bindings > len(problems))

    def resubscribed(self, channel: Channel) -> list[Effect]:
        """What the channel's subject may see has changed."""
        if self.channels.get(channel.topic) is not channel or channel.phase is not Phase.JOINED:
            return []
        return self._subscribed(channel, (), working=True)

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

    def _subscribed(
        self, channel: Channel, problems: Sequence[str], *, working: bool
    ) -> list[Effect]:
        extension = "postgres_changes"
        effects: list[Effect] = []
        for problem in problems:
            effects.append(Note("binding_refused", f"{channel.topic}: {problem}"))
            effects.append(self._says.system(channel.name, channel, "error", extension, problem))
        if working:
            message = errors.SUBSCRIBED
            effects.append(self._says.system(channel.name, channel, "ok", extension, message))
        return effects

    def _fail(self, frame: Frame, response: Mapping[str, Any]) -> list[Effect]:
        return [] if frame.ref is None else [self._says.reply(frame, "error", response)]

    def _refuse(self, frame: Frame, error: WireError, **fields: object) -> list[Effect]:
        return self._over(frame, error, "connection", fields)

    def _over(
        self,
        frame: Frame,
        error: WireError,
        scope: str,
        fields: Mapping[str, object] = MappingProxyType({}),
    ) -> list[Effect]:
        """Refuse for a limit whose bucket is of this scope."""
        name = _LIMITS.get(error)
        limit = "" if name is None else f"{name}/{scope}"
        note = Note("refused", f"{frame.topic}: {error.reason(**fields)}", limit)
        return [note, *self._fail(frame, error.response(**fields))]


def _size(text: str) -> int:
    """How many bytes a text is on the wire."""
    return len(text.encode(errors="surrogatepass"))
