"""Ending tasks that may not want to end."""

from __future__ import annotations

import asyncio
import contextlib

from realtime.util import tasks


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    async def stubborn() -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        raise ValueError("over")

    async def ordinary() -> None:
        await asyncio.Event().wait()

    running = [asyncio.create_task(stubborn()), asyncio.create_task(ordinary())]
    await asyncio.sleep(0)
    await tasks.cancelled(running, again_seconds=0.01)
    assert all(task.done() for task in running)


async def test_nothing_is_ended_at_once() -> None:
    await tasks.cancelled([])
