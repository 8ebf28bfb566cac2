"""Reading is bounded in an iteration of the loop, and fair between addresses."""

from __future__ import annotations

import asyncio
import time

from realtime.delivery.inbound import payer_of, reading_share, reading_slot

SLICE = 0.006


async def test_who_has_read_little_comes_before_those_who_read_much() -> None:
    share = reading_share()
    assert reading_share() is share
    order: list[str] = []

    async def read(address: str, number: int) -> None:
        async with reading_slot(share, payer_of((address, number), number)):
            began = time.perf_counter()
            while time.perf_counter() - began < SLICE:
                pass
            order.append(address)

    many = [asyncio.create_task(read("10.0.0.1", number)) for number in range(30)]
    while not order:
        await asyncio.sleep(0)
    await read("10.0.0.2", 99)
    assert len(order) < 10
    await asyncio.gather(*many)


async def test_connections_without_an_address_are_each_by_itself() -> None:
    one, other = payer_of(None, object()), payer_of(("", 0), order := [])
    assert one.account != other.account and order == []
