"""Waiting for a condition instead of for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0
_STEP = 0.005


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return when `condition` is true. Raises AssertionError if it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(_STEP)


async def auntil(condition: Callable[[], object], what: str = "the condition") -> None:
    """`until` for the event loop."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(_STEP)
