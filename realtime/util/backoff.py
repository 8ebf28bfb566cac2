"""Waiting longer after each failure: delays that double up to a bound. Pure."""

from __future__ import annotations


class Backoff:
    """Delays in seconds: `first`, then twice the last one, at most `most`."""

    __slots__ = ("_first", "_most", "_next")

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """The delay before the next attempt."""
        delay = self._next
        self._next = min(delay * 2, self._most)
        return delay

    def reset(self) -> None:
        """An attempt succeeded: the next delay is the first one again."""
        self._next = self._first
