"""A broadcast on its way between processes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

# Characters of a topic's name without `realtime:`, and of an event's.
LONGEST_TOPIC = 1_024
LONGEST_EVENT = 1_024
# What travels in one message: so many broadcasts, or the one that reaches so many bytes.
_AT_ONCE = 100
_BYTES_AT_ONCE = 256 * 1024


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

    @property
    def size(self) -> int:
        """About how many bytes it takes on its way."""
        return len(self.payload) + len(self.topic) + len(self.event or "")


class BroadcastBatch(msgspec.Struct, frozen=True, array_like=True, tag="casts"):
    """Broadcasts that travel in one message, in order."""

    casts: list[Broadcast]


def in_batches(broadcasts: Iterable[Broadcast]) -> Iterator[BroadcastBatch]:
    """The broadcasts in batches that are neither long nor large. Takes each broadcast only when
    its batch has a place for it."""
    together: list[Broadcast] = []
    size = 0
    for broadcast in broadcasts:
        together.append(broadcast)
        size += broadcast.size
        if len(together) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
            yield BroadcastBatch(together)
            together, size = [], 0
    if together:
        yield BroadcastBatch(together)
