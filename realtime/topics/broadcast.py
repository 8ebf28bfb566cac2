"""A broadcast on its way between processes. Pure."""

from __future__ import annotations

import msgspec


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag="cast"):
    """A broadcast to a topic (its name without `realtime:`).

    `payload` is JSON text when `encoding` is 1, else bytes. `event` is None where a text frame is
    relayed unread: `payload` is then the whole payload of that frame. `origin` is the id of the
    sending channel if it must not receive its own broadcasts, else "". `id` is the id of a stored
    message, or "".
    """

    topic: str
    private: bool
    event: str | None
    payload: bytes
    encoding: int
    origin: str = ""
    id: str = ""

    @property
    def topic_key(self) -> tuple[str, bool]:
        """The topic's name and privacy: a public and a private topic of one name are separate."""
        return self.topic, self.private


class BroadcastBatch(msgspec.Struct, frozen=True, array_like=True, tag="casts"):
    """Broadcasts that travel in one message, in order."""

    casts: list[Broadcast]
