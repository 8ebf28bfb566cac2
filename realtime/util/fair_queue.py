"""A queue that serves many senders in turn, so that one who sends much holds up nobody else.

Pure. Items of one key keep their order; keys take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """At most `each` items of one key and `total` in all.

    When it is full, the key that has most waiting gives way: its newest item is dropped for one of
    a key that has less.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._queues: dict[Hashable, deque[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, key: Hashable, item: T) -> bool:
        """False, and not queued, when this key has its share already."""
        queue = self._queues.get(key)
        waiting = 0 if queue is None else len(queue)
        if waiting >= self._each:
            return False
        if self._size >= self._total and not self._give_way(waiting):
            return False
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(item)
        self._size += 1
        return True

    def pop(self) -> T:
        """The next item of the key whose turn it is. Raises IndexError when nothing waits."""
        key = next(iter(self._queues), None)
        if key is None:
            raise IndexError("nothing waits")
        queue = self._queues.pop(key)
        item = queue.popleft()
        if queue:
            # Behind all others: a dict keeps its order.
            self._queues[key] = queue
        self._size -= 1
        return item

    def _give_way(self, waiting: int) -> bool:
        most = max(self._queues.values(), key=len)
        if len(most) <= waiting + 1:
            return False
        most.pop()
        self._size -= 1
        return True
