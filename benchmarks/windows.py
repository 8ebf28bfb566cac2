"""What of a counter is due to time, to batches and to events. Pure.

A counter (CPU seconds, bytes) is read before and after windows of time that differ in how much is
published. Three windows give three equations: what it grows by each second whatever is published,
with each batch, and with each event of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """How far each counter grew within so many seconds, and how much one server received."""

    seconds: float
    batches: float
    events: float
    grown: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Share:
    """The growth of a counter each second, and with each batch and event beside that."""

    second: float
    batch: float
    event: float


def share(counter: str, trickle: Window, small: Window, large: Window) -> Share:
    """Solve for one counter. The windows must differ in batches and in events of a batch.

    Raises ValueError where they do not, since nothing follows from them then.
    """
    of_trickle, of_small, of_large = (_row(counter, one) for one in (trickle, small, large))
    # Of a second, the first window as the floor.
    first = [a - b for a, b in zip(of_small, of_trickle, strict=True)]
    second = [a - b for a, b in zip(of_large, of_trickle, strict=True)]
    divisor = first[0] * second[1] - first[1] * second[0]
    if abs(divisor) < 1e-9:
        raise ValueError("the windows have the same batches: nothing follows from them")
    batch = (first[2] * second[1] - first[1] * second[2]) / divisor
    event = (first[0] * second[2] - first[2] * second[0]) / divisor
    floor = of_trickle[2] - batch * of_trickle[0] - event * of_trickle[1]
    return Share(floor, batch, event)


def _row(counter: str, window: Window) -> tuple[float, float, float]:
    """Batches, events and the growth of a counter, of a second."""
    seconds = window.seconds
    return window.batches / seconds, window.events / seconds, window.grown[counter] / seconds
