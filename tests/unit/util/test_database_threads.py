"""Work in database threads that is done to its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from realtime.util.database_threads import close_connections, finish_in_database_thread


@pytest.fixture(autouse=True)
async def without_connections() -> None:
    """Tests that met a database before may have left theirs to the threads."""
    await close_connections()


async def test_work_is_finished_however_often_who_waits_is_cancelled() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        done.set()

    waiting = asyncio.create_task(finish_in_database_thread(work))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done.is_set()


async def test_what_it_raises_is_raised() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await finish_in_database_thread(work)
