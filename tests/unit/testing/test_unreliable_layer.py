"""The layer that does what layers do on bad days."""

from __future__ import annotations

from typing import Any

import pytest

from realtime.testing import UnreliableLayer
from tests.support.waiting import auntil

MESSAGES = [{"type": "test", "n": number} for number in range(20)]


async def received(**faults: Any) -> list[int]:
    """What arrives of twenty messages."""
    layer = UnreliableLayer(delay_seconds=0.01, capacity=100, **faults)
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    for message in MESSAGES:
        await layer.group_send("group", message)
    found: list[int] = []
    await auntil(lambda: not layer.late)
    # A queue that was emptied is forgotten.
    while channel in layer.channels:
        found.append((await layer.receive(channel))["n"])
    return found


async def test_without_faults_it_is_a_layer_in_memory() -> None:
    assert await received() == list(range(20))


async def test_it_drops_doubles_and_delays() -> None:
    dropped = await received(drop=0.5)
    assert 0 < len(dropped) < 20 and dropped == sorted(dropped)
    doubled = await received(double=0.5)
    assert len(doubled) > 20 and set(doubled) == set(range(20))
    delayed = await received(delay=0.5)
    assert sorted(delayed) == list(range(20)) and delayed != sorted(delayed)


async def test_the_same_seed_gives_the_same_faults() -> None:
    assert await received(drop=0.5, seed=7) == await received(drop=0.5, seed=7)
    assert await received(drop=0.5, seed=7) != await received(drop=0.5, seed=8)


def test_a_part_is_from_nothing_to_all() -> None:
    with pytest.raises(ValueError, match="drop is a part of the messages, from 0 to 1, not 50"):
        UnreliableLayer(drop=50)
