"""Work in database threads that is done to its end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from django.db import OperationalError

from realtime.event_log.table import UnknownRelation
from realtime.util.database_threads import (
    FEW,
    close_connections,
    finish_in_database_thread,
    in_database_thread,
    in_few_database_threads,
    passes,
)


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


async def test_work_that_waits_for_other_systems_leaves_threads_to_the_database() -> None:
    release = threading.Event()
    waiting = [
        asyncio.ensure_future(in_few_database_threads(release.wait, 30)) for _ in range(FEW + 1)
    ]
    assert await in_database_thread(lambda: "still working") == "still working"
    assert not any(each.done() for each in waiting)
    release.set()
    assert await asyncio.gather(*waiting) == [True] * (FEW + 1)


async def test_work_that_nobody_waits_for_any_more_keeps_its_place_until_it_ends() -> None:
    release = threading.Event()
    given_up = [
        asyncio.ensure_future(in_few_database_threads(release.wait, 30)) for _ in range(FEW)
    ]
    await in_database_thread(lambda: None)
    for each in given_up:
        each.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    late = asyncio.ensure_future(in_few_database_threads(lambda: "late"))
    assert await in_database_thread(lambda: "still working") == "still working"
    assert not late.done()
    release.set()
    assert await late == "late"


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        (OperationalError("away"), True),
        (ConnectionRefusedError(), True),
        (UnknownRelation("restored"), True),
        (KeyError("a fault"), False),
        (IndexError("a fault"), False),
        (LookupError("no such model"), False),
        (TypeError("a fault"), False),
    ],
)
def test_errors_of_a_database_pass_and_those_of_code_do_not(
    error: Exception, is_passing: bool
) -> None:
    assert passes(error) is is_passing
