"""A subscriber: the interface of a joined channel for the code that delivers to it, and the reply
to a subscription.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from realtime.delivery.outbox import Outgoing
from realtime.event_log.position import Position
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.table_key import TableKey
from realtime.topics.listeners import Listener
from realtime.topics.rights import ALL, TopicRights


class Subscriber(Listener, Protocol):
    """A joined channel of a socket: a listener that also receives changes. Or code of this process
    that asked for changes.

    The notifications return at once and raise nothing.
    """

    @property
    def topic(self) -> str: ...
    @property
    def change_frame(self) -> ChangeFrame: ...
    @property
    def connection(self) -> object: ...
    @property
    def patient(self) -> bool:
        """Whether a replay waits for it, and for a database that does not answer, without end."""

    def hear(self, frame: Outgoing, id_: str) -> None: ...
    def takes_more(self) -> bool: ...
    async def writable(self) -> None: ...
    def resubscribed(self) -> None: ...
    def caught_up(self, at: Position) -> None: ...
    def snapshot_begins(self, at: Position, keys: Sequence[TableKey]) -> None: ...
    def snapshot(self, at: Position, count: int, complete: bool) -> None: ...
    def resync(self, at: Position) -> None: ...
    def binding_ended(self, problem: str, *, working: bool) -> None: ...
    def revoked(self) -> None: ...
    def permitted(self, rights: TopicRights) -> None: ...


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The reply to a subscription: where it starts, for each binding why it cannot work or None,
    and what the subject may do on the topic."""

    at: Position
    problems: tuple[str | None, ...]
    rights: TopicRights = ALL
    #: By the text of a problem, what may help.
    hints: Mapping[str, str] = field(default_factory=dict)
