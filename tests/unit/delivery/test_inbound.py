"""Reading is bounded in an iteration of the loop, and fair between addresses."""

from __future__ import annotations

import asyncio
import time

import pytest

from realtime.delivery.inbound import payer_of, reading_share
from realtime.util.loop_share import LoopShare
from realtime.util.payer_queue import Payer


def work(seconds: float, order: list[str], label: str) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
    order.append(label)


async def test_who_has_read_little_comes_before_those_who_read_much() -> None:
    share, order = LoopShare(), list[str]()

    async def read(address: str, number: int) -> None:
        payer = Payer(address, str(number))
        await share.run(payer, lambda: work(0.006, order, address))

    many = [asyncio.create_task(read("10.0.0.1", number)) for number in range(30)]
    while not order:
        await asyncio.sleep(0)
    await read("10.0.0.2", 99)
    assert len(order) < 10
    await asyncio.gather(*many)


async def test_who_comes_and_goes_passes_nobody_who_waits() -> None:
    share, order = LoopShare(), list[str]()

    async def again_and_again() -> None:
        for _ in range(100):
            await share.run(Payer("10.0.0.1", "a"), lambda: work(0.006, order, "greedy"))

    greedy = asyncio.create_task(again_and_again())
    await asyncio.sleep(0)
    for _ in range(4):
        await share.run(Payer("10.0.0.2", "b"), lambda: work(0.001, order, "other"))
    assert len(order) < 20
    greedy.cancel()


async def test_much_small_work_is_done_in_one_iteration_of_the_loop() -> None:
    share, order = LoopShare(60.0), list[str]()
    waiting = [
        asyncio.create_task(share.run(Payer(f"a{n % 3}", str(n)), lambda: work(0, order, "x")))
        for n in range(100)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(order) == 100
    await asyncio.gather(*waiting)


async def test_within_the_budget_nobody_waits_and_beyond_it_all_do_for_one_iteration() -> None:
    share = LoopShare(1.0)
    share.spend(0.5)
    assert share.open
    share.spend(0.5)
    assert not share.open
    await asyncio.sleep(0)
    assert share.open


async def test_what_the_work_raises_is_raised_and_others_go_on() -> None:
    share, order = LoopShare(), list[str]()

    def failing() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await share.run(Payer("a", "1"), failing)
    # The first leaves no time in this iteration, so that the next one waits.
    first = asyncio.create_task(share.run(Payer("a", "1"), lambda: work(0.006, order, "first")))
    given_up = asyncio.create_task(share.run(Payer("a", "1"), lambda: order.append("given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    await share.run(Payer("a", "2"), lambda: order.append("after"))
    await first
    assert order == ["first", "after"]


async def test_piece_after_piece_of_a_client_is_read_one_in_an_iteration_of_the_loop() -> None:
    share, order = reading_share(), list[str]()

    async def read_much() -> None:
        for _ in range(20):
            await share.run(Payer("a", "1"), lambda: order.append("piece"))

    reading = asyncio.create_task(read_much())
    for iterations in range(1, 10):
        await asyncio.sleep(0)
        assert len(order) <= iterations
    await reading
    assert len(order) == 20


async def test_connections_without_an_address_are_each_by_itself() -> None:
    one, other = object(), object()
    assert payer_of(None, one).account != payer_of(("", 0), other).account
    assert reading_share() is reading_share()


async def test_addresses_of_one_ipv6_network_share_an_account() -> None:
    sockets = object(), object()
    one, other = (payer_of((f"2001:db8:1:2::{n}", 0), sockets[n]) for n in (0, 1))
    assert one.account == other.account and one.name != other.name
