"""Ending tasks that may not want to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_SECONDS = 1.0


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended. Once is not enough: a client library that waits for its
    server may take a cancellation for a time-out of its own, and go on."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)
        for task in done:
            # Whatever it ended with, nobody waits for it any more.
            if not task.cancelled():
                task.exception()
