"""Ending tasks that do not end at the first cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_SECONDS = 1.0


async def cancelled(
    tasks: Iterable[asyncio.Task[Any]], again_seconds: float = _AGAIN_SECONDS
) -> None:
    """Cancel tasks, again every `again_seconds`, until they have ended. Once is not enough: a
    client library that waits for its server may mistake a cancellation for its own timeout."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=again_seconds)
        for task in done:
            # Retrieve the exception, so that asyncio does not log it.
            if not task.cancelled():
                task.exception()
