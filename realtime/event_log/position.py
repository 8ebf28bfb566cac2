"""A place in the log: an epoch and a sequence number. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: the last event that a process has delivered."""

    epoch: str
    seq: int
