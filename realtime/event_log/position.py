"""A place in the log: an epoch and a sequence number. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """Where the process stands in the log."""

    epoch: str
    seq: int
