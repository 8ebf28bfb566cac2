"""The channels of this process that receive broadcasts, by topic.

Pure. A public and a private topic of one name are separate: nothing crosses. Within a topic the
channels are grouped by protocol version, because each group receives the same frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from realtime.delivery.outbox import Sink
from realtime.delivery.recipients import Recipients
from realtime.protocol.serializer import Version


class Listener(Protocol):
    """A joined channel, as a receiver of broadcasts and presence."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> Version: ...
    @property
    def outlet(self) -> Sink: ...
    @property
    def broadcast_outlet(self) -> Sink: ...


L = TypeVar("L", bound=Listener)
_sink_of = attrgetter("broadcast_outlet")


class TopicListeners(Generic[L]):
    """Listeners by topic name and privacy. A listener is in at most one topic."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, bool], dict[Version, Recipients[L]]] = {}
        self._topic_of: dict[L, tuple[str, bool]] = {}
        self._by_id: dict[str, L] = {}

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def listeners(self) -> int:
        """The number of listeners, over all topics."""
        return len(self._topic_of)

    def listener(self, id_: str) -> L | None:
        """The listener with this id; None if there is none."""
        return self._by_id.get(id_)

    def join(self, listener: L, topic: str, private: bool) -> None:
        """Add the listener to this topic, and remove it from any other."""
        key = (topic, private)
        if self._topic_of.get(listener) == key:
            return
        self.leave(listener)
        groups = self._topics.setdefault(key, {})
        if listener.version not in groups:
            groups[listener.version] = Recipients(_sink_of)
        groups[listener.version].add(listener)
        self._topic_of[listener] = key
        self._by_id[listener.id] = listener

    def leave(self, listener: L) -> None:
        """Remove the listener from its topic; does nothing if it is in none."""
        key = self._topic_of.pop(listener, None)
        if key is None:
            return
        del self._by_id[listener.id]
        groups = self._topics[key]
        group = groups[listener.version]
        group.discard(listener)
        if not group:
            del groups[listener.version]
        if not groups:
            del self._topics[key]

    def has_listeners(self, topic: str, private: bool) -> bool:
        """Whether the topic has a listener here."""
        return (topic, private) in self._topics

    def groups(self, topic: str, private: bool) -> Iterable[tuple[Version, Recipients[L]]]:
        """The topic's listeners, by protocol version."""
        return self._topics.get((topic, private), {}).items()
