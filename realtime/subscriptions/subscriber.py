"""A subscriber: a joined channel as those see it who deliver to it, and the answer that it gets.

Decides nothing; what is behind it is `port`'s to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from realtime.delivery.outbox import Outgoing, Sink
from realtime.event_log.position import Position
from realtime.protocol.serializer import Version
from realtime.topics.rights import ALL, TopicRights


class Subscriber(Protocol):
    """One joined channel of a socket, as seen from here."""

    @property
    def id(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def version(self) -> Version: ...
    @property
    def outlet(self) -> Sink: ...
    @property
    def casts(self) -> Sink: ...
    def hear(self, frame: Outgoing, id_: str) -> None: ...
    async def writable(self) -> None: ...
    def resubscribed(self) -> None: ...
    def caught_up(self, at: Position) -> None: ...
    def snapshot(self, at: Position, count: int, complete: bool) -> None: ...
    def resync(self, at: Position) -> None: ...
    def revoked(self) -> None: ...
    def permitted(self, rights: TopicRights) -> None: ...


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription: where it starts, why which binding cannot work, and what the
    subject may do on the topic."""

    at: Position
    problems: tuple[str | None, ...]
    rights: TopicRights = ALL
