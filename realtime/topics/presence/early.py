"""Changes on private topics that came before this process has followed the log to where they were
written. Pure.

Rights change at positions of the log. Who has lost a right at a position must not be sent what was
written behind it, so such a change waits, and with it the later ones of its process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from realtime.event_log.position import Position
from realtime.topics.presence.changes import PresenceChanges

T = TypeVar("T")


class EarlyChanges(Generic[T]):
    """Messages, each with a value of the caller, in the order of their processes."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[PresenceChanges, T]]] = {}

    def put(self, message: PresenceChanges, value: T, at: Position | None) -> bool:
        """Let the message wait if it has to, for rights that are known up to `at`. Returns whether
        it does."""
        waiting = self._waiting.get(message.process)
        if waiting is None:
            if not is_early(message.epoch, message.seq, at):
                return False
            waiting = self._waiting[message.process] = deque()
        waiting.append((message, value))
        return True

    def due(self, at: Position | None) -> Iterator[tuple[PresenceChanges, T]]:
        """Take out those that need not wait any more."""
        for process, waiting in list(self._waiting.items()):
            while waiting and not is_early(waiting[0][0].epoch, waiting[0][0].seq, at):
                yield waiting.popleft()
            if not waiting:
                del self._waiting[process]


def is_early(epoch: str, seq: int, at: Position | None) -> bool:
    """Whether rights are not known yet as of this position of the same epoch."""
    return at is not None and epoch == at.epoch and seq > at.seq
