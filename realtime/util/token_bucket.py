"""Token buckets: how often something may happen, as arithmetic on given times.

Pure: the time is an argument, in seconds of any monotonic clock, so tests need no waiting. A bucket
must not be shared among threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens earned per second, and the most that are held at once. None per second: unlimited.

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
        """At most `count` at once, earned back over `seconds`."""
        return cls(None, 1.0) if count is None else cls(count / seconds, max(1.0, count))


class TokenBucket:
    """The tokens left of a Rate. Full at first; refilled by time, never above the burst."""

    __slots__ = ("_level", "_rate", "_then")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._level = rate.burst
        self._then = -math.inf

    def take(self, now: float, n: float = 1.0) -> bool:
        """Take `n` tokens; False, and none taken, when there are fewer."""
        if self._rate.per_second is None:
            return True
        self._refill(now, self._rate.per_second)
        if self._level < n:
            return False
        self._level -= n
        return True

    def give(self, n: float = 1.0) -> None:
        """Put back tokens that were taken and not used."""
        self._level = min(self._rate.burst, self._level + n)

    def full(self, now: float) -> bool:
        """Whether the bucket holds its whole burst."""
        if self._rate.per_second is None:
            return True
        self._refill(now, self._rate.per_second)
        return self._level >= self._rate.burst

    def _refill(self, now: float, per_second: float) -> None:
        # A clock that steps back adds nothing, and no time is counted twice.
        if now > self._then:
            earned = (now - self._then) * per_second
            self._level = min(self._rate.burst, self._level + earned)
            self._then = now
