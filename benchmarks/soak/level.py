"""Whether what was measured again and again stayed level, or grew.

Pure. What comes after the warm-up is cut into thirds. The median of the last third may exceed that
of the first by a share and a fixed amount: pruning and vacuum make sizes go up and down, and
memory of Python and PostgreSQL is fragmented by another pattern of use at each time.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Measurements in a third, below which nothing can be said.
LEAST = 4


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a median may be above an earlier one: a share of it, and an amount."""

    share: float
    amount: float

    def above(self, value: float) -> float:
        return value + value * self.share + self.amount


@dataclass(frozen=True, slots=True)
class Thirds:
    """The medians of three equal parts of a run after its warm-up, and the bound of the last."""

    what: str
    first: float
    middle: float
    last: float
    most: float

    @property
    def level(self) -> bool:
        return self.last <= self.most


def thirds(
    measured: Mapping[str, Sequence[tuple[float, float]]], warm: float, bounds: Mapping[str, Bound]
) -> list[Thirds]:
    """The thirds of each series of (seconds, value) that has a bound, from `warm` seconds on. A
    series with fewer than LEAST measurements in a third is left out."""
    found = []
    for what, bound in bounds.items():
        values = [value for at, value in measured.get(what, ()) if at >= warm]
        size = len(values) // 3
        if size < LEAST:
            continue
        parts = values[:size], values[size:-size], values[-size:]
        first, middle, last = map(statistics.median, parts)
        found.append(Thirds(what, first, middle, last, bound.above(first)))
    return found
