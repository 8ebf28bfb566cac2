"""Who listens to which topic's broadcasts, in this process.

Pure. A public and a private topic of one name are two rooms: nothing crosses. Those of a room who
speak the same version of the protocol get the same frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from realtime.delivery.outbox import Sink
from realtime.delivery.recipients import Recipients
from realtime.protocol.serializer import Version


class Listener(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def version(self) -> Version: ...
    @property
    def casts(self) -> Sink: ...


L = TypeVar("L", bound=Listener)
_sink_of = attrgetter("casts")


class TopicListeners(Generic[L]):
    """Rooms by name and privacy. A listener is in at most one."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[str, bool], dict[Version, Recipients[L]]] = {}
        self._room_of: dict[L, tuple[str, bool]] = {}
        self._listeners: dict[str, L] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def listeners(self) -> int:
        """How many listen, over all rooms."""
        return len(self._room_of)

    def listener(self, id_: str) -> L | None:
        """Who has this id, if somebody who listens does."""
        return self._listeners.get(id_)

    def join(self, listener: L, topic: str, private: bool) -> None:
        """Listen to the topic, and to no other any more."""
        name = (topic, private)
        if self._room_of.get(listener) == name:
            return
        self.leave(listener)
        room = self._rooms.setdefault(name, {})
        if listener.version not in room:
            room[listener.version] = Recipients(_sink_of)
        room[listener.version].add(listener)
        self._room_of[listener] = name
        self._listeners[listener.id] = listener

    def leave(self, listener: L) -> None:
        """Stop listening; nothing happens to who did not listen."""
        name = self._room_of.pop(listener, None)
        if name is None:
            return
        del self._listeners[listener.id]
        room = self._rooms[name]
        alike = room[listener.version]
        alike.discard(listener)
        if not alike:
            del room[listener.version]
        if not room:
            del self._rooms[name]

    def heard(self, topic: str, private: bool) -> bool:
        """Whether anybody listens."""
        return (topic, private) in self._rooms

    def rooms(self, topic: str, private: bool) -> Iterable[tuple[Version, Recipients[L]]]:
        """Everybody who listens now, by what they speak."""
        return self._rooms.get((topic, private), {}).items()
