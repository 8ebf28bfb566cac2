"""Positions in the log. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """An epoch and the seq of an event: for a process, the last event that it has delivered."""

    epoch: str
    seq: int
