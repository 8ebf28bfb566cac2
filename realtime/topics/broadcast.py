"""A broadcast on its way between processes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

# Characters of a topic's name without `realtime:`, and of an event's.
LONGEST_TOPIC = 1_024
LONGEST_EVENT = 1_024
# A batch is complete at so many broadcasts, or with the broadcast that reaches so many bytes.
_AT_ONCE = 100
_BYTES_AT_ONCE = 256 * 1024


# Names in the `meta` of a broadcast that only the server writes.
_SERVER_NAMES = ("id", "replayed", "user_id")
_decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag="cast"):
    """A broadcast to a topic (its name without `realtime:`).

    `payload` is JSON text when `encoding` is 1, else bytes. `event` is None where a text frame is
    relayed unread: `payload` is then the whole payload of that frame. `origin` is the id of the
    sending channel if it must not receive its own broadcasts, else "". `id` is the id of a stored
    message, or "". `user_id` is the user who sent it to a private topic, or "".
    """

    topic: str
    private: bool
    event: str | None
    payload: bytes
    encoding: int
    origin: str = ""
    id: str = ""
    user_id: str = ""

    @property
    def topic_key(self) -> tuple[str, bool]:
        """The topic's name and privacy: a public and a private topic of one name are separate."""
        return self.topic, self.private

    @property
    def size(self) -> int:
        """About how many bytes it takes on the bus."""
        return len(self.payload) + len(self.topic) + len(self.event or "")


class BroadcastBatch(msgspec.Struct, frozen=True, array_like=True, tag="casts"):
    """Broadcasts in one message of the bus, in order."""

    broadcasts: list[Broadcast]


class PassingBatch(msgspec.Struct, frozen=True, array_like=True, tag="passing"):
    """Broadcasts of `realtime.topics.passing`, each with its mark: a batch may come twice."""

    marks: list[str]
    broadcasts: list[Broadcast]


class RecentMarks:
    """The marks that came lately. `seconds` after it came, a mark may be forgotten."""

    def __init__(self, seconds: float = 300.0) -> None:
        self._seconds = seconds
        # In the order they came.
        self._came: dict[str, float] = {}

    def fresh(self, batch: PassingBatch, now: float) -> BroadcastBatch:
        """The broadcasts of a batch that come for the first time. `now` is in seconds."""
        while self._came and now - self._came[first := next(iter(self._came))] > self._seconds:
            del self._came[first]
        found = []
        for mark, broadcast in zip(batch.marks, batch.broadcasts, strict=False):
            if mark not in self._came:
                self._came[mark] = now
                found.append(broadcast)
        return BroadcastBatch(found)


def with_sender(payload: bytes, private: bool, user_id: str) -> bytes:
    """The payload of a text frame with the sender's `user_id` in its `meta` if the topic is
    private. Values that a client wrote under a name of the server are removed.

    Nothing else is decoded, so the client's payload keeps its digits.
    """
    if not private and b'"meta"' not in payload and b"\\" not in payload:
        return payload
    cells = _decode_cells(payload)
    try:
        meta = _decode_cells(cells.pop("meta", b"{}"))
    except msgspec.MsgspecError:
        meta = {}
    for name in _SERVER_NAMES:
        meta.pop(name, None)
    if private and user_id:
        meta["user_id"] = msgspec.Raw(_encode(user_id))
    if meta:
        cells["meta"] = msgspec.Raw(_encode(meta))
    return _encode(cells)


def in_batches(broadcasts: Iterable[Broadcast]) -> Iterator[BroadcastBatch]:
    """The broadcasts in batches that are neither long nor large. A broadcast is only taken when its
    batch has room for it."""
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
