"""Full garbage collections that take long: most look only at new objects.

A full collection looks at every container of the process. In a process with many objects it stops
everything for a tenth of a second and more, again and again while sockets come and go, and finds
little: what a socket leaves behind is freed without it. So once a full collection has taken long,
the objects that it kept are frozen (`gc.freeze`), and the next one looks only at those that came
since. A cycle that is dropped after it was frozen would stay. So from time to time everything is
looked at again: after ten minutes, and when looking at new objects has taken as long as looking at
everything; the sooner, the more garbage that finds. A process in which it still finds much goes
back to Python's own way for ten minutes, and one in which it takes no longer long, at once.

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
    """When full collections are limited, and how long garbage may stay.

    `long` is how many seconds a full collection takes that is too long. Garbage stays at most
    `seconds`; `looking` is how many seconds of looking at new objects are never too many: as
    many as 20,000 sockets bring. While a herd of sockets comes, looks at new objects follow each
    other within `quiet` seconds; the look at everything then waits for its end, or until looking
    took `herd` times as long. A look at everything that frees more than `garbage` objects came too
    late: the next one comes in half the time. `least` is the smallest part of the usual time; where
    that is too late, too, this process makes cycles that live long.
    """

    long: float = 0.05
    seconds: float = 600.0
    looking: float = 1.0
    quiet: float = 2.0
    herd: float = 4.0
    garbage: int = 20_000
    least: float = 1 / 8


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
    """A callback in `gc.callbacks`."""

    def __init__(
        self,
        bounds: CollectionBounds = _BOUNDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._bounds = bounds
        self._clock = clock
        #: Whether the next full collection looks at new objects alone.
        self.limiting = False
        # Part of the usual time until everything is looked at again.
        self._part = 1.0
        # Seconds of the last look at everything, and of looks at new objects since.
        self._whole = self._looked = 0.0
        # When the last full collection ended.
        self._ended = clock()
        # When everything is looked at again, and until when nothing is limited.
        self._due = self._unlimited_until = clock()
        self._began = 0.0

    def begin(self) -> None:
        """Look at the time of full collections from the next one on."""
        gc.callbacks.append(self)

    def end(self) -> None:
        """Leave full collections to Python. The next one looks at everything."""
        if self in gc.callbacks:
            gc.callbacks.remove(self)
        self.limiting = False
        gc.unfreeze()

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        # Called inside an allocation, in any thread: it must not log or wait.
        if info["generation"] != _OLDEST:
            return
        now = self._clock()
        if phase == "start":
            if self.limiting and (now >= self._due or self._looked >= self._enough(now)):
                self.limiting = False
                gc.unfreeze()
            self._began = now
            return
        self._ended = now
        if self.limiting:
            self._looked += now - self._began
            gc.freeze()
        else:
            self._after_everything(now, info["collected"])

    def _enough(self, now: float) -> float:
        enough = max(self._bounds.looking, self._whole) * self._part
        in_herd = now - self._ended < self._bounds.quiet
        return enough * self._bounds.herd if in_herd else enough

    def _after_everything(self, now: float, garbage: int) -> None:
        was_limited, self._whole = self._whole > 0.0, now - self._began
        if was_limited:
            self._part = self._part / 2 if garbage > self._bounds.garbage else 1.0
        if self._part < self._bounds.least:
            self._part = 1.0
            self._unlimited_until = now + self._bounds.seconds
        if now < self._unlimited_until or self._whole < self._bounds.long:
            self._whole = 0.0
            return
        self._looked = 0.0
        self._due = now + self._bounds.seconds * self._part
        self.limiting = True
        gc.freeze()


_limited: FullCollections | None = None


def limit() -> None:
    """Limit the full collections of this process that take long, unless the host has set the
    collector, or this Python needs it not. Does nothing the second time."""
    global _limited
    if _limited is None:
        _limited = FullCollections()
        if is_generational() and not is_host_set():
            _limited.begin()
