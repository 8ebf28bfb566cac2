"""Rows that clients have not taken yet: bounded in all and of one address, and waited for."""

from __future__ import annotations

import asyncio

from realtime.subscriptions.replay.unsent import UnsentRows
from realtime.util.payer_queue import Payer
from tests.support.waiting import PATIENCE_SECONDS

ADA, BOB = Payer("192.0.2.1", "ada"), Payer("192.0.2.2", "bob")


async def test_an_address_at_its_bound_waits_and_others_do_not() -> None:
    rows = UnsentRows(most=100, each=10)
    with rows.keeping(ADA, 10):
        assert not rows.has_room(ADA)
        assert rows.has_room(BOB)
        await rows.room(BOB)
        waiting = asyncio.create_task(rows.room(ADA))
        await asyncio.sleep(0)
        assert rows.crowded and not waiting.done()
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    assert not rows.crowded


async def test_at_the_bound_of_all_everybody_waits() -> None:
    rows = UnsentRows(most=10, each=10)
    with rows.keeping(ADA, 10):
        waiting = asyncio.create_task(rows.room(BOB))
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def test_a_wait_that_is_given_up_is_forgotten() -> None:
    rows = UnsentRows(most=10, each=10)
    with rows.keeping(ADA, 10):
        waiting = asyncio.create_task(rows.room(BOB))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert not rows.crowded
