"""Full garbage collections of a process with many sockets: most look only at new objects.

A full collection looks at every container of the process. With ten thousand sockets that stops the
process for half a second, again and again while sockets come, and finds nothing: what a socket
leaves behind is freed without it. So objects that a full collection has kept are frozen
(`gc.freeze`), and the next one looks only at those that came since. A cycle of the host's own code
that is dropped after it was frozen would stay. So from time to time everything is looked at again:
after ten minutes, and when looking at new objects has taken as long as looking at everything. A
process in which that finds much garbage goes back to Python's own way.

Knows no sockets.
"""

from __future__ import annotations

import gc
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass

_OLDEST = 2
# The thresholds of Python 3.11 and of later versions.
_USUAL = ((700, 10, 10), (2_000, 10, 0), (2_000, 10, 10))


@dataclass(frozen=True, slots=True)
class CollectionBounds:
    """How long garbage may stay, at most `seconds`. `looking` is how many seconds of looking at new
    objects are never too many. A look at everything that frees more than `garbage` objects is the
    last: this process makes cycles that live long."""

    seconds: float = 600.0
    looking: float = 0.3
    garbage: int = 50_000


_BOUNDS = CollectionBounds()


def is_host_set() -> bool:
    """Whether the host has set the collector by itself: it is off, or has other thresholds, frozen
    objects or callbacks."""
    return (
        not gc.isenabled()
        or gc.get_threshold() not in _USUAL
        or bool(gc.callbacks)
        or bool(gc.get_freeze_count())
    )


def is_generational() -> bool:
    """Whether this Python has full collections that stop the process for long. Those of 3.14 are
    incremental, and those of builds without the interpreter's lock cannot be limited."""
    return sys.version_info < (3, 14) and not sysconfig.get_config_var("Py_GIL_DISABLED")


class FullCollections:
    """A callback in `gc.callbacks`. `many` says whether there are still many sockets; when there
    are not, the next full collection looks at everything, and is the last that is changed."""

    def __init__(
        self,
        many: Callable[[], bool],
        bounds: CollectionBounds = _BOUNDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._many = many
        self._bounds = bounds
        self._clock = clock
        self._due = clock() + bounds.seconds
        # Seconds of the last look at everything, and of looks at new objects since.
        self._whole = self._looked = 0.0
        self._everything = True
        self._began = 0.0
        #: Whether full collections are Python's own again.
        self.ended = False
        #: Whether they stay so, because this process makes cycles that live long.
        self.in_vain = False

    def begin(self) -> None:
        """Limit full collections from the next one on."""
        gc.callbacks.append(self)

    def end(self) -> None:
        """Leave full collections to Python. The next one looks at everything."""
        self.ended = True
        if self in gc.callbacks:
            gc.callbacks.remove(self)
        gc.unfreeze()

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        # Called inside an allocation, in any thread: it must not log or wait.
        if info["generation"] != _OLDEST:
            return
        now = self._clock()
        if phase == "start":
            enough = max(self._bounds.looking, self._whole)
            if now >= self._due or self._looked >= enough or not self._many():
                self._everything = True
                gc.unfreeze()
            self._began = now
            return
        took = now - self._began
        if not self._everything:
            self._looked += took
            gc.freeze()
            return
        self._everything = False
        self._whole, self._looked = took, 0.0
        self._due = now + self._bounds.seconds
        self.in_vain = info["collected"] > self._bounds.garbage
        if self.in_vain or not self._many():
            self.end()
        else:
            gc.freeze()


_limited: FullCollections | None = None
_allowed: bool | None = None


def limit(many: Callable[[], bool]) -> None:
    """Limit the full collections of this process while `many` is true, unless the host has set the
    collector, or this Python needs it not. Does nothing while they are limited."""
    global _limited, _allowed
    if _allowed is None:
        _allowed = is_generational() and not is_host_set()
    if not _allowed or (_limited is not None and (_limited.in_vain or not _limited.ended)):
        return
    _limited = FullCollections(many)
    _limited.begin()
