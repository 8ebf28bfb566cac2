"""A limit for the number of log records of each kind, so that many alike do not flood the log.

Pure. Imports no models: a server loads it before Django is set up.
"""

from __future__ import annotations


class RecordLimit:
    """Admits at most `most` of each kind in each `period` of seconds."""

    def __init__(self, most: int, period: float) -> None:
        self._most = most
        self._period = period
        self._since: dict[str, float] = {}
        self._admitted: dict[str, int] = {}
        self._suppressed: dict[str, int] = {}

    def admit(self, kind: str, now: float) -> int | None:
        """How many of the kind were suppressed since the last admitted one; None when this one
        is suppressed too. `now` is in seconds, from any monotonic clock."""
        since = self._since.get(kind)
        if since is None or now - since >= self._period:
            self._since[kind] = now
            self._admitted[kind] = 0
        if self._admitted[kind] >= self._most:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        self._admitted[kind] += 1
        return self._suppressed.pop(kind, 0)
