"""Topic events: broadcasts and presence messages from a client.

Pure, a part of the session: a message and the time in, effects out. The connection performs the
effects and reports the results with `relayed`, `not_stored` and `tracked`.
"""

from __future__ import annotations

from realtime.client_limits import Limits
from realtime.protocol.errors import WireError
from realtime.protocol.serializer import BinaryBroadcast, ClientMessage, Encoding
from realtime.session.channel import Channel
from realtime.session.effects import Effect, Send, SendBroadcast, SubscribePresence, Track
from realtime.session.quotas import QuotaChain
from realtime.session.replies import Replies
from realtime.topics.broadcast import LONGEST_EVENT
from realtime.topics.presence import rules

# Bytes of an entry of the log, beside the values that clients put into it.
_ENTRY_BYTES = 256
_AROUND_META = 1_024


class TopicEvents:
    """One per socket, with the socket's replies and quotas."""

    __slots__ = ("_limits", "_quotas", "_replies")

    def __init__(self, replies: Replies, quotas: QuotaChain, limits: Limits) -> None:
        self._replies = replies
        self._quotas = quotas
        self._limits = limits

    @property
    def most_bytes(self) -> int | None:
        """Bytes of the largest payload that is not refused; None without a limit."""
        payload, meta = self._limits.payload_bytes, self._limits.presence_meta_bytes
        # A track has a little around its meta.
        return None if payload is None or meta is None else max(payload, meta + _AROUND_META)

    def broadcast(self, channel: Channel, message: ClientMessage, now: float) -> list[Effect]:
        """The client broadcasts to the topic."""
        payload = message.payload
        if isinstance(payload, BinaryBroadcast):
            event, body, encoding = payload.event, payload.payload, payload.encoding
            # Only broadcasts of private channels are stored.
            persist = channel.config.private and bool(payload.metadata.get("persist"))
        else:
            event, body, encoding, persist = None, message.raw, Encoding.JSON, False
            # The text is relayed as it stands, with the event's name in it.
            name = message.fields.get("event")
            if isinstance(name, str) and len(name) > LONGEST_EVENT:
                error = WireError.EVENT_NAME_TOO_LONG
                return self._refuse(channel, message, error, most=LONGEST_EVENT)
        if not channel.rights.send:
            return self._write_refused(channel, message)
        limit = self._limits.payload_bytes
        if limit is not None and len(body) > limit:
            return self._refuse(channel, message, WireError.PAYLOAD_TOO_LARGE)
        if scope := self._may_broadcast(channel, now):
            return self._over(channel, message, scope)
        return [SendBroadcast(channel, event, body, encoding, message, persist)]

    def presence(self, channel: Channel, message: ClientMessage, now: float) -> list[Effect]:
        """The client tracks or untracks its presence on the topic."""
        if self.most_bytes is not None and len(message.raw) > self.most_bytes:
            return self._replies.refuse(message, WireError.TRACK_TOO_LARGE)
        asked = message.fields.get("event")
        event = asked.lower() if isinstance(asked, str) else ""
        if event not in ("track", "untrack"):
            reason = f"unknown presence event {asked!r}: expected track or untrack"
            return self._replies.fail(message, {"reason": reason})
        if scope := self._may_track(channel, now):
            return self._replies.over(message, WireError.TOO_MANY_PRESENCE_MESSAGES, scope)
        if event == "untrack":
            if scope := self._may_write(channel, now, b""):
                return self._replies.over(message, WireError.TOO_MANY_PRESENCE_MESSAGES, scope)
            return [Track(channel, None, message)]
        if not channel.rights.track:
            return self._track_refused(channel, message)
        meta = rules.check_track(channel.key, message.raw, self._limits.presence_meta_bytes)
        if isinstance(meta, rules.Refused):
            return self._replies.refuse(message, meta.error, **meta.fields)
        if scope := self._may_write(channel, now, meta):
            return self._replies.over(message, WireError.TOO_MANY_PRESENCE_MESSAGES, scope)
        effects: list[Effect] = [Track(channel, meta, message)]
        if not channel.shows_presence:
            # A client that tracks gets presence events, as with the official server.
            channel.shows_presence = True
            if channel.rights.view:
                effects.insert(0, SubscribePresence(channel))
        return effects

    def relayed(
        self, effect: SendBroadcast, taken: bool, stored: str | None = None
    ) -> list[Effect]:
        """A broadcast was relayed, and stored under the id `stored`; or the queue was full."""
        if not taken:
            return self._over(effect.channel, effect.message, "process")
        if not effect.channel.config.broadcast_ack:
            return []
        return [self._replies.reply(effect.message, "ok", {"id": stored} if stored else {})]

    def write_refused(self, effect: SendBroadcast) -> list[Effect]:
        """A broadcast was not relayed, because the channel may not send any more."""
        return self._write_refused(effect.channel, effect.message)

    def not_stored(self, effect: SendBroadcast, detail: str) -> list[Effect]:
        """A broadcast could not be stored, and was not relayed."""
        error = WireError.BROADCAST_NOT_STORED
        return self._refuse(effect.channel, effect.message, error, detail=detail)

    def tracked(self, effect: Track, problem: str | None = None) -> list[Effect]:
        """The difference was delivered in this process, or `problem` says why it was not stored.
        Also a channel that has left meanwhile is answered, by the ref of its message."""
        if problem is not None:
            return self._replies.refuse(effect.message, WireError.TRACK_NOT_STORED, detail=problem)
        return [] if effect.message.ref is None else [self._replies.reply(effect.message, "ok", {})]

    def track_refused(self, effect: Track) -> list[Effect]:
        """A meta was not stored, because the channel may not be present any more."""
        return self._track_refused(effect.channel, effect.message)

    def too_many(self, channel: Channel, message: ClientMessage) -> list[Effect]:
        """Too many messages wait for the channel's join to be answered."""
        return self._over(channel, message, "connection")

    def unmatched(self, channel: Channel, message: ClientMessage) -> list[Effect]:
        """The channel that a message was for is not joined any more, or was not to be joined."""
        effects = self._replies.fail(message, WireError.UNMATCHED_TOPIC.response())
        return self._if_asked(channel, message, effects)

    def _write_refused(self, channel: Channel, message: ClientMessage) -> list[Effect]:
        return self._refuse(channel, message, WireError.WRITE_UNAUTHORIZED, topic=channel.name)

    def _track_refused(self, channel: Channel, message: ClientMessage) -> list[Effect]:
        return self._replies.refuse(message, WireError.TRACK_UNAUTHORIZED, topic=channel.name)

    def _refuse(
        self, channel: Channel, message: ClientMessage, error: WireError, **fields: object
    ) -> list[Effect]:
        effects = self._replies.refuse(message, error, **fields)
        return self._if_asked(channel, message, effects)

    def _over(self, channel: Channel, message: ClientMessage, scope: str) -> list[Effect]:
        effects = self._replies.over(message, WireError.TOO_MANY_MESSAGES, scope)
        return self._if_asked(channel, message, effects)

    def _if_asked(
        self, channel: Channel, message: ClientMessage, effects: list[Effect]
    ) -> list[Effect]:
        """The effects without the reply to a broadcast, if the client asked for no replies: some
        clients would take an error reply for a failure of the channel. Log and metrics stay."""
        if message.event.lower() != "broadcast" or channel.config.broadcast_ack:
            return effects
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _may_broadcast(self, channel: Channel, now: float) -> str:
        """ "" when the broadcast is allowed, else the scope of the quota that refuses it."""
        scope = self._quotas.broadcast(now)
        if not scope and channel.quotas is not None:
            scope = channel.quotas.broadcast(now)
        return scope

    def _may_write(self, channel: Channel, now: float, meta: bytes) -> str:
        """As `_may_track`, for the bytes that a track or untrack leaves in the log."""
        size = _ENTRY_BYTES + len(channel.key) + len(channel.name) + len(meta)
        scope = self._quotas.presence_data(now, size)
        if not scope and channel.quotas is not None:
            scope = channel.quotas.presence_data(now, size)
        return scope

    def _may_track(self, channel: Channel, now: float) -> str:
        if not channel.presence_limit.take(now):
            return "channel"
        # A rejoined channel has a fresh limit; the shared quotas go on.
        scope = self._quotas.presence(now)
        if not scope and channel.quotas is not None:
            scope = channel.quotas.presence(now)
        return scope
