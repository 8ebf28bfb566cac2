"""The frames that one client is told alone: answers, lifecycle, system messages.

Pure. What is to be said is the session's business; how it looks in either serializer is
`protocol`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from realtime import protocol
from realtime.effects import Channel, Position, Send
from realtime.protocol import Frame, Version

Payload = Mapping[str, Any] | msgspec.Raw


class Answers:
    """In the serializer of one socket."""

    __slots__ = ("_version",)

    def __init__(self, version: Version) -> None:
        self._version = version

    def reply(self, frame: Frame, status: str, response: Mapping[str, Any]) -> Send:
        """The answer to a frame."""
        payload = {"status": status, "response": response}
        return self._frame(frame.join_ref, frame.ref, frame.topic, "phx_reply", payload)

    def join_reply(self, channel: Channel, status: str, response: Mapping[str, Any]) -> Send:
        """The answer to the join of a channel."""
        payload = {"status": status, "response": response}
        ref = channel.join_reply_ref
        return self._frame(channel.join_ref, ref, channel.topic, "phx_reply", payload)

    def push(self, channel: Channel, event: str, payload: Payload) -> Send:
        """Something that nobody asked for."""
        return self._frame(channel.join_ref, None, channel.topic, event, payload)

    def system(
        self, name: str, channel: Channel | None, status: str, extension: str, message: str
    ) -> Send:
        """A `system` message; without a channel, one about the socket."""
        payload = {"status": status, "message": message, "extension": extension, "channel": name}
        if channel is None:
            return self._frame(None, None, name, "system", payload)
        return self.push(channel, "system", payload)

    def placed(
        self, channel: Channel, extension: str, message: str, at: Position, **more: int
    ) -> Send:
        """A `system` message about a place in the log."""
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
        # Clients heed these only under the ref of the join they belong to.
        return self._frame(channel.join_ref, channel.join_ref, channel.topic, event, {})

    def _frame(
        self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Payload
    ) -> Send:
        return Send(
            protocol.encode(
                self._version,
                join_ref=join_ref,
                ref=ref,
                topic=topic,
                event=event,
                payload=payload,
            )
        )
