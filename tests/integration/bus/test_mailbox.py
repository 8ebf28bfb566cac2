"""Mailboxes on Redis: they outlive silence, and everything that a Redis may do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubLoopLayer
from django.test import override_settings

from realtime.bus.mailbox import Mailbox, MailboxTiming
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.redis import LIBRARY_SECONDS, Redis, redis_goes
from tests.support.vendors import about_no_database
from tests.support.waiting import auntil

KINDS = ("core", "pubsub")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with redises.running_ours(tmp_path) as server:
        yield server


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest, own_redis: Redis) -> Iterator[str]:
    with override_settings(CHANNEL_LAYERS=layers(request.param, own_redis.url)):
        yield request.param


class Box(Mailbox):
    """A mailbox and what it received. Quick to check itself unless told otherwise."""

    timing = MailboxTiming(silence=0.3, call=0.5, retry=0.1)

    def __init__(self, name: str) -> None:
        self.got: list[Any] = []
        super().__init__("default", name, self.got.append)


class PatientBox(Box):
    timing = MailboxTiming()


@pytest.fixture
async def boxes() -> AsyncIterator[Callable[..., Any]]:
    made: list[Box] = []

    async def make(name: str, kind: type[Box] = Box) -> Box:
        box = kind(name)
        made.append(box)
        await box.open()
        return box

    yield make
    for box in made:
        await box.close()


async def arrives(sender: Box, receiver: Box, number: int) -> None:
    """Send until it is received: what is sent while a layer does not work is lost."""
    async with asyncio.timeout(30):
        while {"type": "m", "n": number} not in receiver.got:
            with contextlib.suppress(Exception):
                await sender.send(receiver.name, {"type": "m", "n": number})
            await asyncio.sleep(0.05)


@pytest.mark.slow
@about_no_database
@redis_goes
async def test_a_mailbox_is_back_after_a_restart_a_flush_and_a_hang(
    layer: str, own_redis: Redis, boxes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = await boxes("a.sender"), await boxes("a.receiver")
    await arrives(sender, receiver, 0)
    for number, harm in enumerate((own_redis.restart, own_redis.flush, own_redis.restart), 1):
        harm()
        await arrives(sender, receiver, number)
    own_redis.freeze()
    await asyncio.sleep(LIBRARY_SECONDS)
    own_redis.thaw()
    await arrives(sender, receiver, 9)
    caplog.clear()
    own_redis.kill()
    await auntil(lambda: "nothing can be received as a.receiver" in caplog.text)
    own_redis.start()
    await arrives(sender, receiver, 10)
    # What a mailbox sends itself is for nobody else.
    assert {message["type"] for message in receiver.got} == {"m"}


@pytest.mark.slow
@about_no_database
async def test_idleness_is_no_outage(
    layer: str, own_redis: Redis, boxes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime.layers")
    receiver = await boxes("b.receiver", PatientBox)
    await asyncio.sleep(LIBRARY_SECONDS)
    sender = await boxes("b.sender")
    await arrives(sender, receiver, 1)
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_layer_that_does_not_bring_its_own_messages_is_replaced(
    layer: str,
    own_redis: Redis,
    boxes: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "realtime.layers")
    backend: Any = RedisChannelLayer if layer == "core" else RedisPubSubLoopLayer
    works, forever = backend.receive, asyncio.Event()
    deaf: list[Any] = []

    async def receive(one: Any, channel: str) -> Any:
        if not deaf:
            deaf.append(one)
        if one is deaf[0]:
            await forever.wait()
        return await works(one, channel)

    monkeypatch.setattr(backend, "receive", receive)
    receiver = await boxes("c.receiver")
    sender = await boxes("c.sender")
    await arrives(sender, receiver, 1)
    actions = [record.action for record in caplog.records]
    assert actions == ["mailbox_failing", "mailbox_works"]


async def test_a_mailbox_that_is_closed_receives_no_more(
    layer: str, own_redis: Redis, boxes: Any
) -> None:
    receiver, sender = await boxes("d.receiver"), await boxes("d.sender")
    other = await boxes("d.other")
    await arrives(sender, receiver, 1)
    await receiver.close()
    await sender.send("d.receiver", {"type": "m", "n": 2})
    # Sent later, so the layer hands it out later.
    await arrives(sender, other, 3)
    assert {"type": "m", "n": 2} not in receiver.got
