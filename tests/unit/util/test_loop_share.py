"""Work on the event loop leaves time for others, and goes first to the payers that used least."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from realtime.util.loop_share import LoopShare
from realtime.util.payer_queue import Payer

GREEDY, OTHER = Payer("192.0.2.1", "a"), Payer("192.0.2.2", "b")


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float, done: list[str], label: str) -> Callable[[], str]:
        def work() -> str:
            self.now += seconds
            done.append(label)
            return label

        return work


async def test_other_tasks_run_after_each_slice() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)
    seen: list[int] = []
    running = True

    async def others() -> None:
        while running:
            seen.append(len(done))
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await asyncio.gather(*(share.run(GREEDY, clock.work(0.3, done, str(n))) for n in range(100)))
    running = False
    await beside
    assert len(done) == 100
    # A slice ends with the first work that goes beyond it.
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 4


async def test_a_slice_is_filled_with_short_work_of_one_payer() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)
    seen: list[int] = []
    # The first fills a slice, so that the others wait.
    waiting = [
        asyncio.create_task(share.run(GREEDY, clock.work(cost, done, "short")))
        for cost in (1.0, *[0.001] * 500)
    ]
    while not all(task.done() for task in waiting):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert 501 in seen
    assert len(seen) < 10


async def test_a_stranger_comes_before_the_rest_of_one_address() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)
    flood = [
        asyncio.create_task(share.run(GREEDY, clock.work(1.0, done, "greedy"))) for _ in range(100)
    ]
    await asyncio.sleep(0)
    assert await share.run(OTHER, clock.work(1.0, done, "other")) == "other"
    assert done.index("other") <= 2
    await asyncio.gather(*flood)
    assert done.count("greedy") == 100


async def test_who_costs_more_comes_less_often() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)
    tasks = [
        asyncio.create_task(share.run(payer, clock.work(cost, done, payer.name)))
        for _ in range(40)
        for payer, cost in ((GREEDY, 10.0), (OTHER, 1.0))
    ]
    await asyncio.gather(*tasks)
    early = done[:22]
    assert early.count("b") > 5 * early.count("a")


async def test_work_whose_caller_was_cancelled_is_not_done() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)
    first, given_up, after = (
        asyncio.create_task(share.run(GREEDY, clock.work(1.0, done, label)))
        for label in ("first", "given up", "after")
    )
    # The first fills a slice. The second begins to wait, and is given up before the next slice.
    asyncio.get_running_loop().call_soon(given_up.cancel)
    await asyncio.gather(first, after)
    assert done == ["first", "after"]
    assert given_up.cancelled()


async def test_an_error_of_work_is_that_of_its_caller_alone() -> None:
    share = LoopShare(1.0, Clock())

    def fails() -> None:
        raise ValueError("of this work")

    for _ in range(2):
        with pytest.raises(ValueError, match="of this work"):
            await share.run(GREEDY, fails)
    assert await share.run(GREEDY, lambda: "done") == "done"


async def test_work_that_is_cancelled_from_inside_ends_its_caller_and_nobody_else() -> None:
    clock = Clock()
    done: list[str] = []
    share = LoopShare(1.0, clock)

    def cancelled() -> None:
        raise asyncio.CancelledError

    # The first fills a slice, so that the others wait for theirs.
    first = asyncio.create_task(share.run(GREEDY, clock.work(1.0, done, "first")))
    inside = asyncio.create_task(share.run(GREEDY, cancelled))
    after = asyncio.create_task(share.run(GREEDY, clock.work(1.0, done, "after")))
    async with asyncio.timeout(30):
        assert await asyncio.gather(first, after) == ["first", "after"]
        await asyncio.wait([inside])
    assert inside.cancelled()
