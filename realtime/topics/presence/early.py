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


# Members in messages that wait, all processes together.
_MOST_MEMBERS = 20_000


class EarlyChanges(Generic[T]):
    """Messages, each with a value of the caller, in the order of their processes.

    Of other processes than `own` about `most` members wait at most: beyond that what waits of the
    process that has most is forgotten. Its next number shows that something is missing, and its
    members are read from the table.
    """

    def __init__(self, own: str = "", most: int = _MOST_MEMBERS) -> None:
        self._own = own
        self._most = most
        self._waiting: dict[str, deque[tuple[PresenceChanges, T]]] = {}
        # By other process, how many members wait.
        self._members: dict[str, int] = {}

    def put(self, message: PresenceChanges, value: T, at: Position | None) -> bool:
        """Let the message wait if it has to, for rights that are known up to `at`. Returns whether
        it does, or was forgotten."""
        process = message.process
        waiting = self._waiting.get(process)
        if waiting is None:
            if not is_early(message.epoch, message.seq, at):
                return False
            waiting = self._waiting[process] = deque()
        waiting.append((message, value))
        if process != self._own:
            self._members[process] = self._members.get(process, 0) + _cost(message)
            while sum(self._members.values()) > self._most:
                largest = max(self._members, key=lambda each: self._members[each])
                del self._members[largest], self._waiting[largest]
        return True

    def due(self, at: Position | None) -> Iterator[tuple[PresenceChanges, T]]:
        """Take out those that need not wait any more."""
        for process, waiting in list(self._waiting.items()):
            while waiting and not is_early(waiting[0][0].epoch, waiting[0][0].seq, at):
                message, value = waiting.popleft()
                if process in self._members:
                    self._members[process] -= _cost(message)
                yield message, value
            # The caller may have let others wait meanwhile.
            if not waiting and self._waiting.get(process) is waiting:
                del self._waiting[process]
                self._members.pop(process, None)


def _cost(message: PresenceChanges) -> int:
    return 1 + message.weight


def is_early(epoch: str, seq: int, at: Position | None) -> bool:
    """Whether rights are not known yet as of this position of the same epoch."""
    return at is not None and epoch == at.epoch and seq > at.seq
