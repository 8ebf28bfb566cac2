"""What a client says on the topics of its channels: broadcasts, and that it is present.

Pure: (frame, now) in, effects out, as with the session whose part this is. Performing them is the
consumer's, which then says by `relayed`, `not_stored` and `tracked` what became of it.
"""

from __future__ import annotations

from realtime.protocol.errors import WireError
from realtime.protocol.serializer import BinaryBroadcast, ClientMessage, Encoding
from realtime.session.channel import Channel, Phase
from realtime.session.effects import Effect, SendBroadcast, Track, WatchPresence
from realtime.session.quotas import QuotaChain
from realtime.session.replies import Replies
from realtime.topics.presence import rules


class TopicEvents:
    """One per socket. `purse` are the socket's quotas; `most` bounds the bytes of a payload."""

    __slots__ = ("_most", "_purse", "_says")

    def __init__(self, says: Replies, purse: QuotaChain, most: int | None) -> None:
        self._says = says
        self._purse = purse
        self._most = most

    def broadcast(self, channel: Channel, frame: ClientMessage, now: float) -> list[Effect]:
        """The client sends to the topic."""
        if channel.phase is not Phase.JOINED:
            return self._says.fail(frame, WireError.UNMATCHED_TOPIC.response())
        payload = frame.payload
        if isinstance(payload, BinaryBroadcast):
            event, body, encoding = payload.event, payload.payload, payload.encoding
            # Clients ask for it on private channels only.
            persist = channel.config.private and bool(payload.metadata.get("persist"))
        else:
            event, body, encoding, persist = None, frame.raw, Encoding.JSON, False
        if not channel.rights.send:
            return self._says.refuse(frame, WireError.WRITE_UNAUTHORIZED, topic=channel.name)
        limit = self._most
        if limit is not None and len(body) > limit:
            return self._says.refuse(frame, WireError.PAYLOAD_TOO_LARGE)
        if scope := self._may_broadcast(channel, now):
            return self._says.over(frame, WireError.TOO_MANY_MESSAGES, scope)
        return [SendBroadcast(channel, event, body, encoding, frame, persist)]

    def presence(self, channel: Channel, frame: ClientMessage, now: float) -> list[Effect]:
        """The client is present on the topic, or is not any more."""
        if channel.phase is not Phase.JOINED:
            return self._says.fail(frame, WireError.UNMATCHED_TOPIC.response())
        asked = frame.fields.get("event")
        event = asked.lower() if isinstance(asked, str) else ""
        if event not in ("track", "untrack"):
            reason = f"unknown presence event {asked!r}: expected track or untrack"
            return self._says.fail(frame, {"reason": reason})
        if scope := self._may_track(channel, now):
            return self._says.over(frame, WireError.TOO_MANY_PRESENCE_MESSAGES, scope)
        if event == "untrack":
            return [Track(channel, None, frame)]
        if not channel.rights.track:
            return self._says.refuse(frame, WireError.TRACK_UNAUTHORIZED, topic=channel.name)
        meta = rules.check_track(channel.key, frame.raw, self._most)
        if isinstance(meta, rules.Refused):
            return self._says.refuse(frame, meta.error, **meta.fields)
        effects: list[Effect] = [Track(channel, meta, frame)]
        if not channel.watching:
            # Who is present himself sees who else is.
            channel.watching = True
            if channel.rights.view:
                effects.insert(0, WatchPresence(channel))
        return effects

    def relayed(
        self, effect: SendBroadcast, taken: bool, stored: str | None = None
    ) -> list[Effect]:
        """A broadcast was relayed (and stored, under this id), or there was no room for it."""
        if not taken:
            return self._says.over(effect.frame, WireError.TOO_MANY_MESSAGES, "process")
        if not effect.channel.config.broadcast_ack:
            return []
        return [self._says.reply(effect.frame, "ok", {"id": stored} if stored else {})]

    def not_stored(self, effect: SendBroadcast, detail: str) -> list[Effect]:
        """A broadcast could not be stored, so it was not sent either."""
        return self._says.refuse(effect.frame, WireError.BROADCAST_NOT_STORED, detail=detail)

    def tracked(self, effect: Track, problem: str | None = None) -> list[Effect]:
        """Everybody here has been told of a presence, or it could not be stored."""
        if effect.channel.phase is Phase.GONE:
            return []
        if problem is not None:
            return self._says.refuse(effect.frame, WireError.TRACK_NOT_STORED, detail=problem)
        return [] if effect.frame.ref is None else [self._says.reply(effect.frame, "ok", {})]

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
