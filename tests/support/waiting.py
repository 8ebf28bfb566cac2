"""Waiting for a condition instead of for a while. Needs no pytest: servers' settings import it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 30.0
_STEP = 0.005


def until(
    condition: Callable[[], Any],
    what: str = "the condition",
    *,
    patience: float = PATIENCE_SECONDS,
    every: float = _STEP,
) -> Any:
    """What `condition` gives, once it is true. It is asked `every` so many seconds. Raises
    AssertionError if it does not become true within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not so after {patience:g} s: {what}"
        time.sleep(every)
    return found


async def auntil(
    condition: Callable[[], Any],
    what: str = "the condition",
    *,
    patience: float = PATIENCE_SECONDS,
    every: float = _STEP,
) -> Any:
    """`until` for the event loop. What the condition gives is awaited if need be."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"still not so after {patience:g} s: {what}"
        await asyncio.sleep(every)
