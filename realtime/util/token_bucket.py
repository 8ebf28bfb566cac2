"""Limits: how much of something a client may do, as arithmetic on given times.

Pure: the time is an argument, in seconds of any clock that never goes back, so that tests need
no waiting. Buckets are not safe to share among threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per second in the long run, and so many at once. None per second: unlimited.

    Raises ValueError for a rate or a burst that is not positive.
    """

    per_second: float | None
    burst: float

    def __post_init__(self) -> None:
        if self.per_second is not None and not self.per_second > 0:
            raise ValueError(f"a rate must be positive or None, not {self.per_second!r}")
        if not self.burst > 0:
            raise ValueError(f"a burst must be positive, not {self.burst!r}")

    @classmethod
    def of(cls, per_second: float | None, burst: float | None = None) -> Rate:
        """A rate whose burst is one second's worth, at least one, unless given."""
        if burst is None:
            burst = 1.0 if per_second is None else max(1.0, per_second)
        return cls(per_second, burst)

    @classmethod
    def per_window(cls, count: float | None, seconds: float) -> Rate:
        """At most `count` at once, earned back over a window of so many seconds."""
        return cls(None, 1.0) if count is None else cls(count / seconds, max(1.0, count))


class TokenBucket:
    """What is left of a Rate. Full at first; refills with time, never above the burst."""

    __slots__ = ("_level", "_rate", "_then")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._level = rate.burst
        self._then = -math.inf

    def take(self, now: float, n: float = 1.0) -> bool:
        """Take `n` if they are there; if not, take nothing and answer False."""
        if self._rate.per_second is None:
            return True
        self._refill(now, self._rate.per_second)
        if self._level < n:
            return False
        self._level -= n
        return True

    def give(self, n: float = 1.0) -> None:
        """Put back what was taken and not used."""
        self._level = min(self._rate.burst, self._level + n)

    def wait(self, now: float, n: float = 1.0) -> float:
        """Seconds until `take(n)` would succeed; 0 if now, infinity if more than the burst."""
        if self._rate.per_second is None:
            return 0.0
        self._refill(now, self._rate.per_second)
        if n > self._rate.burst:
            return math.inf
        return max(0.0, (n - self._level) / self._rate.per_second)

    def full(self, now: float) -> bool:
        """Whether nothing is taken that time has not given back."""
        if self._rate.per_second is None:
            return True
        self._refill(now, self._rate.per_second)
        return self._level >= self._rate.burst

    def _refill(self, now: float, per_second: float) -> None:
        # A clock that stepped back earns nothing, and does not earn the same time twice.
        if now > self._then:
            earned = (now - self._then) * per_second
            self._level = min(self._rate.burst, self._level + earned)
            self._then = now


class AllOf:
    """Several buckets drawn from at once: something is taken from all of them or from none."""

    __slots__ = ("buckets",)

    def __init__(self, *buckets: TokenBucket) -> None:
        self.buckets = buckets

    def take(self, now: float, n: float = 1.0) -> int:
        """Take `n` from each. -1 when done, else the place of the first that had too little."""
        for place, bucket in enumerate(self.buckets):
            if not bucket.take(now, n):
                for earlier in self.buckets[:place]:
                    earlier.give(n)
                return place
        return -1


class ByteBudget:
    """Bytes accepted and not yet given back, against a bound. None: no bound."""

    __slots__ = ("_bound", "held")

    def __init__(self, bound: int | None) -> None:
        self._bound = bound
        self.held = 0

    def add(self, size: int) -> bool:
        """Hold `size` more bytes. False, and nothing held, when that would pass the bound.

        One item larger than the bound passes when nothing is held: it could never pass else.
        """
        if self._bound is not None and self.held and self.held + size > self._bound:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        """Give back `size` bytes. Raises ValueError when fewer are held."""
        if size > self.held:
            raise ValueError(f"cannot release {size} of {self.held} bytes held")
        self.held -= size

    def clear(self) -> None:
        """Give back everything, as when the client has shown that it read it all."""
        self.held = 0
