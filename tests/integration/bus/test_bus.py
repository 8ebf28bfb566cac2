"""The bus over every channel layer: what arrives, and what happens when the layer does not work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubLoopLayer
from django.test import override_settings

from realtime.bus.bus import GROUP, Bus, LayerDown, Message, Timing
from realtime.bus.layers import let_go, own_layer
from realtime.event_log.batch import Batch
from realtime.topics.broadcast import Broadcast, BroadcastBatch
from realtime.wal.entry import WalRow
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.redis import Redis, redis_goes
from tests.support.vendors import about_no_database
from tests.support.waiting import auntil

pytestmark = [pytest.mark.slow, about_no_database]

KINDS = ("memory", "core", "pubsub")
REDIS_KINDS = ("core", "pubsub")
# The same bus, quicker to doubt. On a slow machine no call may be taken for a failure.
WATCHFUL = Timing(call=10.0, retry=0.05, silence=0.2)
# Quick to give up as well, for layers that do not answer.
IMPATIENT = Timing(call=0.5, retry=0.05, silence=0.2)


def batch(number: int, body: bytes = b"{}") -> Batch:
    return Batch("epoch", number - 1, [WalRow(number, number, "r", "I", None, body)], [])


def cast(number: int) -> BroadcastBatch:
    return BroadcastBatch([Broadcast("topic", False, f"e{number}", b"{}", 1)])


class End:
    """One process's end of the bus, with what it received."""

    def __init__(self, timing: Timing = WATCHFUL, **options: Any) -> None:
        self.got: list[Message] = []
        self.bus = Bus("default", self.got.append, timing=timing, **options)

    @property
    def numbers(self) -> list[int]:
        return [row.seq for message in self.got for row in getattr(message, "rows", ())]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with redises.running_ours(tmp_path) as server:
        yield server


@pytest.fixture
async def ends() -> AsyncIterator[Callable[..., End]]:
    made: list[End] = []

    def make(**options: Any) -> End:
        made.append(End(**options))
        return made[-1]

    yield make
    for end in made:
        await end.bus.leave()


def over(kind: str, url: str = "") -> Any:
    return override_settings(CHANNEL_LAYERS=layers(kind, url))


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest) -> Iterator[str]:
    url = "" if request.param == "memory" else request.getfixturevalue("redis").url
    with over(request.param, url):
        yield request.param


async def test_what_one_sends_everybody_receives_in_order(layer: str, ends: Any) -> None:
    one, two = ends(), ends()
    await one.bus.join()
    await two.bus.join()
    assert one.bus.healthy
    for number in range(1, 51):
        await one.bus.publish(batch(number))
    await auntil(lambda: len(one.got) >= 50 and len(two.got) >= 50)
    assert one.numbers == two.numbers == list(range(1, 51))
    assert one.bus.counters.heard == 50


async def test_a_message_that_cannot_be_encoded_is_no_failure_of_the_layer(ends: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers("memory", "")):
        one, other = ends(), ends()
        await one.bus.join()
        await other.bus.join()
        wrong = BroadcastBatch([Broadcast("\ud800", False, "e", b"{}", 1)])
        with pytest.raises(UnicodeEncodeError):
            await one.bus.publish(wrong)
        assert one.bus.healthy
        await one.bus.publish(batch(1))
        await auntil(lambda: other.numbers == [1])


async def test_who_only_sends_need_not_join(layer: str, ends: Any) -> None:
    listener, sender = ends(), ends()
    await listener.bus.join()
    await sender.bus.publish(batch(1))
    await auntil(lambda: listener.got)
    assert sender.got == []


async def test_more_than_a_layer_holds_passes_through(redis: Redis, ends: Any) -> None:
    # The core layer drops what is sent while 100 messages wait for a process.
    with over("core", redis.url):
        listener, sender = ends(), ends()
        await listener.bus.join()
        for number in range(1, 401):
            await sender.bus.publish(batch(number))
        await auntil(lambda: len(listener.got) == 400)
        assert listener.numbers == list(range(1, 401))


async def test_after_leaving_nothing_arrives(layer: str, ends: Any) -> None:
    gone, here = ends(), ends()
    await gone.bus.join()
    await here.bus.join()
    await gone.bus.leave()
    await here.bus.publish(batch(1))
    await auntil(lambda: here.got)
    assert gone.got == []


async def test_a_batch_too_big_for_a_layer_is_announced_instead_of_sent(
    layer: str, ends: Any
) -> None:
    end = ends(most_bytes=1000)
    await end.bus.join()
    await end.bus.publish(batch(7, b"x" * 1001))
    await auntil(lambda: end.got)
    assert end.got == [Batch("epoch", 7, [], [])]


async def test_a_foreign_message_is_ignored(
    layer: str, ends: Any, caplog: pytest.LogCaptureFixture
) -> None:
    end = ends()
    await end.bus.join()
    foreign = own_layer("default")
    for message in ({"type": "chat"}, {"type": "chat", "b": b"\xc1"}, {"type": "chat", "b": 5}):
        await foreign.group_send(GROUP, message)
    await let_go(foreign)
    await end.bus.publish(batch(1))
    await auntil(lambda: end.got)
    assert end.numbers == [1]
    assert end.bus.healthy
    assert "a message on the bus is not ours" in caplog.text


async def test_alone_on_an_in_memory_layer_a_process_takes_what_it_sends_at_once(ends: Any) -> None:
    with over("memory"):
        one = ends()
        await one.bus.join()
        await one.bus.publish(cast(1))
        assert one.got == [cast(1)]
        assert one.bus.counters.heard == 1
        # Until somebody else listens, who is not to miss anything.
        two = ends()
        await two.bus.join()
        await one.bus.publish(cast(2))
        await auntil(lambda: two.got == [cast(2)])
        await two.bus.leave()
        await one.bus.publish(cast(3))
        await auntil(lambda: len(one.got) == 3)
        assert one.got == [cast(1), cast(2), cast(3)]


@pytest.mark.parametrize("kind", ["memory", ""])
async def test_broadcasts_are_held_back_while_who_hears_them_alone_is_busy(kind: str) -> None:
    with over("memory") if kind else override_settings(CHANNEL_LAYERS={}):
        got: list[Message] = []
        busy = [True]
        bus = Bus("default", got.append, busy=lambda: busy[0])
        await bus.join()
        sending = asyncio.create_task(bus.publish(cast(1)))
        # The log has bounds of its own.
        await bus.publish(batch(1))
        await auntil(lambda: got == [batch(1)])
        assert not sending.done()
        busy[0] = False
        await sending
        assert got == [batch(1), cast(1)]
        await bus.leave()


async def test_broadcasts_that_others_hear_too_are_not_held_back(ends: Any) -> None:
    with over("memory"):
        got: list[Message] = []
        busy = Bus("default", got.append, busy=lambda: True)
        await busy.join()
        sending = asyncio.create_task(busy.publish(cast(1)))
        other = ends()
        await other.bus.join()
        await sending
        await auntil(lambda: got == other.got == [cast(1)])
        await busy.leave()


async def test_what_waits_in_an_in_memory_layer_is_not_overtaken(ends: Any) -> None:
    with over("memory"):
        one = ends()
        await one.bus.join()
        layer = own_layer("default")
        (channel,) = layer.groups[GROUP]
        for number in range(1, 6):
            # Does not wait, so the process has had no turn to take them.
            body = msgspec.msgpack.encode(cast(number))
            await layer.send(channel, {"type": "realtime.batch", "b": body})
        await one.bus.publish(cast(6))
        await auntil(lambda: len(one.got) == 6)
        assert one.got == [cast(number) for number in range(1, 7)]


async def test_without_a_layer_the_bus_reaches_its_own_process(ends: Any) -> None:
    with override_settings(CHANNEL_LAYERS={}):
        end = ends()
        await end.bus.join()
        await end.bus.publish(batch(1))
        assert end.numbers == [1]
        assert end.bus.healthy


async def arrives(sender: End, listener: End, number: int) -> None:
    """Sends until it is received: what is sent while a layer does not work is lost."""

    async def send() -> None:
        while number not in listener.numbers:
            with contextlib.suppress(Exception):
                await sender.bus.publish(batch(number))
            await asyncio.sleep(0.02)

    async with asyncio.timeout(30):
        await send()


@redis_goes
@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_after_a_restart_of_redis_everybody_is_back(
    kind: str, own_redis: Redis, ends: Any
) -> None:
    with over(kind, own_redis.url):
        listener, sender = ends(timing=IMPATIENT), ends(timing=IMPATIENT)
        await listener.bus.join()
        for number in (1, 2):
            own_redis.restart()
            await arrives(sender, listener, number)
        await auntil(lambda: listener.bus.healthy and sender.bus.healthy)


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_long_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    kind: str, own_redis: Redis, ends: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime.bus")
    with over(kind, own_redis.url):
        # A probe that is lost with the server is waited for, and is no second outage.
        end = ends(timing=Timing(call=3.0, retry=0.05, silence=0.2))
        await end.bus.join()
        own_redis.kill()
        await auntil(lambda: not end.bus.healthy)
        failures = end.bus.counters.layer_failures
        await auntil(lambda: end.bus.counters.layer_failures > failures + 3)
        with pytest.raises(Exception):  # noqa: B017
            await end.bus.publish(batch(1))
        own_redis.start()
        await auntil(lambda: end.bus.healthy)
        await arrives(end, end, 2)
    lines = [r.action for r in caplog.records if r.name == "realtime.bus"]
    assert lines == ["bus_down", "bus_up"]


async def test_a_group_that_redis_forgot_is_joined_again(own_redis: Redis, ends: Any) -> None:
    with over("core", own_redis.url):
        listener, sender = ends(timing=IMPATIENT), ends()
        await listener.bus.join()
        own_redis.flush()
        # Nobody is told of that: sending works, and nobody hears.
        await sender.bus.publish(batch(1))
        await arrives(sender, listener, 2)
        assert listener.bus.counters.rejoins > 0


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_layer_that_hangs_holds_up_nobody(kind: str, own_redis: Redis, ends: Any) -> None:
    with over(kind, own_redis.url):
        listener, sender = ends(timing=IMPATIENT), ends(timing=IMPATIENT)
        await listener.bus.join()
        await arrives(sender, listener, 1)
        own_redis.freeze()
        with pytest.raises(TimeoutError):
            await sender.bus.publish(batch(2))
        # Until it answers, nothing waits for it any more.
        with pytest.raises(LayerDown):
            await sender.bus.publish(batch(3))
        await auntil(lambda: not listener.bus.healthy)
        own_redis.thaw()
        await arrives(sender, listener, 4)
        await auntil(lambda: listener.bus.healthy and sender.bus.healthy)


@redis_goes
@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_process_that_starts_without_redis_joins_when_there_is_one(
    kind: str, own_redis: Redis, ends: Any
) -> None:
    own_redis.kill()
    with over(kind, own_redis.url):
        end = ends(timing=IMPATIENT)
        await end.bus.join()
        assert not end.bus.healthy
        own_redis.start()
        await arrives(end, end, 1)
        await auntil(lambda: end.bus.healthy)


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_layer_that_is_stuck_is_replaced(
    kind: str, redis: Redis, ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with over(kind, redis.url):
        backend: Any = RedisChannelLayer if kind == "core" else RedisPubSubLoopLayer
        works, forever = backend.receive, asyncio.Event()
        receiving: list[Any] = []

        async def receive(layer: Any, channel: str) -> Any:
            if layer not in receiving:
                receiving.append(layer)
            if layer is receiving[0]:
                await forever.wait()
            return await works(layer, channel)

        monkeypatch.setattr(backend, "receive", receive)
        end = ends(timing=IMPATIENT)
        await end.bus.join()
        assert not end.bus.healthy
        await arrives(end, end, 1)
        assert len(receiving) == 2


async def test_a_silence_ends_with_a_probe_that_nobody_above_the_bus_gets(
    redis: Redis, ends: Any
) -> None:
    with over("pubsub", redis.url):
        one, two = ends(), ends()
        await one.bus.join()
        await two.bus.join()
        observer = own_layer("default")
        channel = await observer.new_channel()
        await observer.group_add(GROUP, channel)
        async with asyncio.timeout(30):
            for _ in range(3):
                message = await observer.receive(channel)
                assert msgspec.msgpack.decode(message["b"]) == ["probe"]
        await let_go(observer)
        assert one.got == two.got == []
        assert one.bus.healthy and two.bus.healthy
