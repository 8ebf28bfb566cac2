"""A broadcast on its way between processes. Pure."""

from __future__ import annotations

import msgspec


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag="cast"):
    """A broadcast to a topic (its name without `realtime:`).

    `payload` is JSON text when `encoding` is 1, else bytes. `event` is None where a text frame is
    relayed as it came: `payload` is then the whole of its payload. `origin` is the channel that
    does not want its own broadcasts back, or "". `id` is that of a stored message, or "".
    """

    topic: str
    private: bool
    event: str | None
    payload: bytes
    encoding: int
    origin: str = ""
    id: str = ""

    @property
    def room(self) -> tuple[str, bool]:
        """Where it is heard: a public and a private topic of one name are two rooms."""
        return self.topic, self.private


class BroadcastBatch(msgspec.Struct, frozen=True, array_like=True, tag="casts"):
    """Broadcasts that travel together, in order."""

    casts: list[Broadcast]
