"""Waiting for a condition instead of for a while."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 30.0
_STEP = 0.005


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return when `condition` is true. Raises AssertionError if it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(_STEP)


async def auntil(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """`until` for the event loop. What the condition gives is awaited if need be, and returned."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(_STEP)
