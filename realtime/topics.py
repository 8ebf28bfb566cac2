"""Who listens to which topic's broadcasts, in this process.

Pure. A public and a private topic of one name are two rooms: nothing crosses.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Listener(Protocol):
    @property
    def id(self) -> str: ...


L = TypeVar("L", bound=Listener)


class Topics(Generic[L]):
    """Rooms by name and privacy. A listener is in at most one."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[str, bool], dict[L, None]] = {}
        self._room_of: dict[L, tuple[str, bool]] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def listeners(self) -> int:
        """How many listen, over all rooms."""
        return len(self._room_of)

    def join(self, listener: L, topic: str, private: bool) -> None:
        """Listen to the topic, and to no other any more."""
        self.leave(listener)
        room = (topic, private)
        self._rooms.setdefault(room, {})[listener] = None
        self._room_of[listener] = room

    def leave(self, listener: L) -> None:
        """Stop listening; nothing happens to who did not listen."""
        room = self._room_of.pop(listener, None)
        if room is None:
            return
        del self._rooms[room][listener]
        if not self._rooms[room]:
            del self._rooms[room]

    def heard(self, topic: str, private: bool) -> bool:
        """Whether anybody listens."""
        return (topic, private) in self._rooms

    def members(self, topic: str, private: bool, without: str = "") -> list[L]:
        """Everybody in the room now, but for the listener whose id is `without`."""
        room = self._rooms.get((topic, private), ())
        if not without:
            return list(room)
        return [listener for listener in room if listener.id != without]
