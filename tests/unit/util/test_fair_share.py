"""Places go to the payers that have used least; a payer that asks for much waits for itself."""

from __future__ import annotations

import asyncio

from realtime.util.fair_share import FairShare
from realtime.util.payer_queue import Payer
from tests.support.waiting import PATIENCE_SECONDS

GREEDY, OTHER = Payer("192.0.2.1", "a"), Payer("192.0.2.2", "b")


async def worked(share: FairShare, payer: Payer, done: list[str], label: str, cost: float) -> None:
    async with share.slot(payer) as slot:
        await asyncio.sleep(0)
        slot.charge(cost)
        done.append(label)


async def test_a_stranger_comes_next_however_many_requests_one_address_has() -> None:
    share = FairShare(1)
    done: list[str] = []
    flood = [asyncio.create_task(worked(share, GREEDY, done, "greedy", 1)) for _ in range(100)]
    await asyncio.sleep(0)
    await worked(share, OTHER, done, "other", 1)
    assert done.index("other") <= 2
    await asyncio.gather(*flood)
    assert done.count("greedy") == 100


async def test_who_costs_more_comes_less_often() -> None:
    share = FairShare(1)
    done: list[str] = []
    tasks = [
        asyncio.create_task(worked(share, payer, done, payer.name, cost))
        for _ in range(40)
        for payer, cost in ((GREEDY, 10), (OTHER, 1))
    ]
    await asyncio.gather(*tasks)
    early = done[:22]
    assert early.count("b") > 5 * early.count("a")


async def test_one_address_never_holds_every_place() -> None:
    share = FairShare(2)
    held, release = asyncio.Event(), asyncio.Event()

    async def holding() -> None:
        async with share.slot(GREEDY):
            held.set()
            await release.wait()

    tasks = [asyncio.create_task(holding()) for _ in range(5)]
    await held.wait()
    done: list[str] = []
    await asyncio.wait_for(worked(share, OTHER, done, "other", 1), PATIENCE_SECONDS)
    assert done == ["other"]
    release.set()
    await asyncio.gather(*tasks)


async def test_users_of_one_address_take_turns() -> None:
    share = FairShare(1)
    done: list[str] = []
    many = [asyncio.create_task(worked(share, GREEDY, done, "many", 1)) for _ in range(50)]
    await asyncio.sleep(0)
    await worked(share, Payer(GREEDY.address, "one"), done, "one", 1)
    assert done.index("one") <= 2
    await asyncio.gather(*many)


async def test_without_an_address_each_name_is_by_itself() -> None:
    share = FairShare(2)
    async with share.slot(Payer("", "a")), share.slot(Payer("", "b")):
        pass


async def test_a_request_that_is_given_up_leaves_its_place_to_the_next() -> None:
    share = FairShare(1)
    done: list[str] = []
    async with share.slot(GREEDY):
        given_up = asyncio.create_task(worked(share, OTHER, done, "given up", 1))
        after = asyncio.create_task(worked(share, OTHER, done, "after", 1))
        await asyncio.sleep(0)
        given_up.cancel()
    await after
    # One that has its slot already, and is cancelled before it runs.
    async with share.slot(GREEDY):
        granted = asyncio.create_task(worked(share, OTHER, done, "granted", 1))
        await asyncio.sleep(0)
    granted.cancel()
    await asyncio.wait({granted})
    await asyncio.wait_for(worked(share, OTHER, done, "last", 1), PATIENCE_SECONDS)
    assert done == ["after", "last"]


async def test_who_comes_and_goes_is_charged_and_passes_nobody_who_waits() -> None:
    share = FairShare(1)
    done: list[str] = []

    async def again_and_again() -> None:
        # Between two pieces of work its account has neither a slot nor a request.
        for _ in range(100):
            await worked(share, GREEDY, done, "greedy", 1)

    greedy = asyncio.create_task(again_and_again())
    await asyncio.sleep(0)
    await asyncio.gather(*(worked(share, OTHER, done, "other", 0.5) for _ in range(4)))
    assert len(done) < 20
    await greedy
