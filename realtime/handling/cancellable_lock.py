"""A lock that the handlers of a process share, for attempts that may end it.

A process that dies tells nobody which change ended it. So changes under suspicion are tried one at
a time: what was being tried when the process died is then what ended it.
"""

from __future__ import annotations

import threading

# Between looks at whether the one that waits is to stop.
_LOOK_SECONDS = 0.1


class CancellableLock:
    """At most one holder at a time. Any thread may release it for the holder."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: object | None = None

    def acquire(self, holder: object, stopping: threading.Event) -> bool:
        """Wait for the lock. False, without it, if `stopping` was set meanwhile."""
        with self._changed:
            while self._holder is not None and not stopping.is_set():
                self._changed.wait(_LOOK_SECONDS)
            if stopping.is_set():
                return False
            self._holder = holder
            return True

    def release(self, holder: object) -> None:
        """Let others have it, if `holder` has it."""
        with self._changed:
            if self._holder is holder:
                self._holder = None
                self._changed.notify()
