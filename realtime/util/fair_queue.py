"""A queue that serves its keys round robin, so that a busy key delays no other.

Pure. Items of one key keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """At most `each` items of one key and `total` in all; without bounds of its own by default.

    When it is full, the newest item of the longest key is dropped for one of a shorter key.
    """

    __slots__ = ("_each", "_queues", "_size", "_total")

    def __init__(self, total: float = inf, each: float = inf) -> None:
        self._total = total
        self._each = each
        self._queues: dict[Hashable, deque[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, key: Hashable, item: T) -> bool:
        """Queue an item. False, and not queued, if this key has its share already."""
        queue = self._queues.get(key)
        waiting = 0 if queue is None else len(queue)
        if waiting >= self._each:
            return False
        if self._size >= self._total and not self._make_room(waiting):
            return False
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(item)
        self._size += 1
        return True

    def pop(self) -> T:
        """The first item of the next key. Raises IndexError when the queue is empty."""
        key = next(iter(self._queues), None)
        if key is None:
            raise IndexError("the queue is empty")
        queue = self._queues.pop(key)
        item = queue.popleft()
        if queue:
            # To the end: a dict keeps its order.
            self._queues[key] = queue
        self._size -= 1
        return item

    def discard(self, key: Hashable, item: T) -> None:
        """Remove an item of this key, if it is there."""
        queue = self._queues.get(key)
        if queue is None or item not in queue:
            return
        queue.remove(item)
        if not queue:
            del self._queues[key]
        self._size -= 1

    def _make_room(self, waiting: int) -> bool:
        longest = max(self._queues.values(), key=len)
        if len(longest) <= waiting + 1:
            return False
        longest.pop()
        self._size -= 1
        return True
