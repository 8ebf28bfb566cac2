"""How many pings, pongs and fragments a client may send.

Pure: the time is an argument, in seconds of a monotonic clock. The quotas of a session count whole
messages. These frames never reach the session, and each costs the server time; a ping costs an
answer too.
"""

from __future__ import annotations

from realtime.util.token_bucket import Rate, TokenBucket

# Clients ping every few seconds at most.
_CONTROL = Rate(5, 100)
# Browsers send a message of a megabyte in about ten fragments.
_FRAGMENTS = Rate(100, 1_000)


class FrameBudget:
    """One per socket. A method returns False for a frame beyond what is allowed."""

    __slots__ = ("_control", "_fragments")

    def __init__(self) -> None:
        # Made when they are first taken from: most sockets send no such frame.
        self._control: TokenBucket | None = None
        self._fragments: TokenBucket | None = None

    def control(self, now: float) -> bool:
        """A ping or a pong."""
        if self._control is None:
            self._control = TokenBucket(_CONTROL)
        return self._control.take(now)

    def fragment(self, now: float) -> bool:
        """A part of a message after its first."""
        if self._fragments is None:
            self._fragments = TokenBucket(_FRAGMENTS)
        return self._fragments.take(now)
