"""Frames for one client alone: replies, refusals, lifecycle events, `system` messages.

Pure. The session decides what is sent; `protocol` decides how either serializer writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from realtime.event_log.position import Position
from realtime.protocol import serializer
from realtime.protocol.errors import WireError
from realtime.protocol.serializer import ClientMessage, Version
from realtime.session.channel import Channel
from realtime.session.effects import Effect, Note, Send

Payload = Mapping[str, Any] | msgspec.Raw


# The keys of LIMITS that errors are about.
_LIMITS = {
    WireError.TOO_MANY_CHANNELS: "channels_per_connection",
    WireError.TOO_MANY_JOINS: "joins_per_second",
    WireError.TOO_MANY_MESSAGES: "broadcasts_per_second",
    WireError.TOO_MANY_PRESENCE_MESSAGES: "presence_per_30_seconds",
    WireError.PAYLOAD_TOO_LARGE: "payload_bytes",
    WireError.TRACK_TOO_LARGE: "presence_meta_bytes",
}


class Replies:
    """Makes frames in the serializer of one socket."""

    __slots__ = ("_version",)

    def __init__(self, version: Version) -> None:
        self._version = version

    def reply(self, message: ClientMessage, status: str, response: Mapping[str, Any]) -> Send:
        """The reply to a message."""
        payload = {"status": status, "response": response}
        return self._frame(message.join_ref, message.ref, message.topic, "phx_reply", payload)

    def join_reply(self, channel: Channel, status: str, response: Mapping[str, Any]) -> Send:
        """The reply to the join of a channel."""
        payload = {"status": status, "response": response}
        ref = channel.join_reply_ref
        return self._frame(channel.join_ref, ref, channel.topic, "phx_reply", payload)

    def push(self, channel: Channel, event: str, payload: Payload) -> Send:
        """An event of the server on a channel."""
        return self._frame(channel.join_ref, None, channel.topic, event, payload)

    def system(
        self,
        name: str,
        channel: Channel | None,
        status: str,
        extension: str,
        message: str,
        **more: str,
    ) -> Send:
        """A `system` message; without a channel, one about the socket."""
        payload = {"status": status, "message": message, "extension": extension, "channel": name}
        payload |= more
        if channel is None:
            return self._frame(None, None, name, "system", payload)
        return self.push(channel, "system", payload)

    def system_at(
        self, channel: Channel, extension: str, message: str, at: Position, **more: object
    ) -> Send:
        """A `system` message that names a position in the log."""
        payload = {
            "status": "ok",
            "extension": extension,
            "message": message,
            "channel": channel.name,
            "seq": at.seq,
            **more,
        }
        return self.push(channel, "system", payload)

    def lifecycle(self, channel: Channel, event: str) -> Send:
        """`phx_close` or `phx_error`."""
        # Clients ignore these unless they carry the ref of the join.
        return self._frame(channel.join_ref, channel.join_ref, channel.topic, event, {})

    def fail(self, message: ClientMessage, response: Mapping[str, Any]) -> list[Effect]:
        """The error reply to a message, if the message has a ref to reply to."""
        return [] if message.ref is None else [self.reply(message, "error", response)]

    def refuse(self, message: ClientMessage, error: WireError, **fields: object) -> list[Effect]:
        """An error reply and a log record; a limit behind the error is the connection's."""
        return self.over(message, error, "connection", fields)

    def over(
        self,
        message: ClientMessage,
        error: WireError,
        scope: str,
        fields: Mapping[str, object] = MappingProxyType({}),
    ) -> list[Effect]:
        """An error reply and a log record for a limit of this scope."""
        name = _LIMITS.get(error)
        limit = "" if name is None else f"{name}/{scope}"
        note = Note("refused", f"{message.topic}: {error.reason(**fields)}", limit)
        return [note, *self.fail(message, error.response(**fields))]

    def _frame(
        self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Payload
    ) -> Send:
        return Send(
            serializer.encode(
                self._version,
                join_ref=join_ref,
                ref=ref,
                topic=topic,
                event=event,
                payload=payload,
            )
        )
