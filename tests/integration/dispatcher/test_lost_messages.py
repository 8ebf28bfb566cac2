"""Whatever the layer does to the messages, a client hears every change once and in order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from realtime.bus.bus import Timing
from realtime.dispatcher.dispatcher import InboxLimits
from realtime.dispatcher.head_monitor import MonitorTiming
from realtime.event_log.batch import Batch
from realtime.event_log.table import backlog
from realtime.process.hub import Hub, hub
from realtime.wal.head import read_head
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.redis import Redis, redis_goes
from tests.support.socket_client import Client, db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal", "closing_hub"), pytest.mark.slow]

KINDS = ("memory", "core", "pubsub")
REDIS_KINDS = ("core", "pubsub")
# The same process, quicker to doubt.
QUICK = MonitorTiming(fed=0.2, alone=0.05)
IMPATIENT = Timing(call=0.5, retry=0.1, silence=0.5)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with redises.running_ours(tmp_path) as server:
        yield server


def over(kind: str, url: str = "") -> Any:
    return override_settings(CHANNEL_LAYERS=layers(kind, url), REALTIME={"TAILER": "embedded"})


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest) -> Iterator[str]:
    url = "" if request.param == "memory" else request.getfixturevalue("own_redis").url
    with over(request.param, url):
        yield request.param


@pytest.fixture
async def client(granted: Callable[..., Any]) -> AsyncIterator[Callable[[], Any]]:
    made: list[Client] = []

    async def make(timing: MonitorTiming = QUICK) -> Client:
        await db(granted, "view_note")
        hub().dispatcher.monitor.timing = timing
        hub().bus.timing = IMPATIENT
        made.append(await Client().connect())
        await made[-1].listen()
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def write(*titles: object) -> None:
    for title in titles:
        await db(Note.objects.create, title=str(title))


async def handed_out() -> None:
    """Returns when this process has handed out all that is committed."""

    def reached() -> bool:
        return backlog(connection) + read_head(connection).seq == here.position.seq

    here = hub()
    await auntil(lambda: db(reached), "the end of the log")


async def check_heard(client: Client, titles: list[str]) -> None:
    """Exactly these, in order, with nothing between."""
    heard = [await client.change() for _ in titles]
    assert [change["record"]["title"] for change in heard] == titles
    seqs = [change["seq"] for change in heard]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert await client.silent()


class Fault:
    """Stands before the bus and does to the messages what layers do."""

    def __init__(self, here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self._send = here.bus.publish
        self._held: list[Any] = []
        self.seen = 0
        self.plan: Callable[[], str] = lambda: "pass"
        monkeypatch.setattr(here.bus, "publish", self._publish)

    async def _publish(self, message: Any) -> None:
        self.seen += 1
        deed = self.plan()
        if deed == "late":
            self._held.append(message)
            return
        if deed != "lose":
            await self._send(message)
        if deed == "double":
            await self._send(message)

    async def release(self) -> None:
        held, self._held = self._held, []
        for message in reversed(held):
            await self._send(message)


@pytest.mark.parametrize("deed", ["lose", "double", "late"])
async def test_lost_doubled_and_late_messages_change_nothing(
    layer: str, deed: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await client()
    fault = Fault(hub(), monkeypatch)
    fault.plan = lambda: deed
    await write(*range(5))
    # The last message was not followed by one that would show the gap.
    await handed_out()
    await fault.release()
    fault.plan = lambda: "pass"
    await write(*range(5, 10))
    await check_heard(listener, [str(n) for n in range(10)])
    assert hub().counters.resyncs == 0
    assert (hub().counters.heals > 0) == (deed != "double")


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_of_faults_changes_nothing(seed: int, client: Any) -> None:
    faults = {"drop": 0.2, "double": 0.2, "delay": 0.4, "seed": seed}
    unreliable = {"BACKEND": "realtime.testing.UnreliableLayer", "CONFIG": faults}
    with override_settings(CHANNEL_LAYERS={"default": unreliable}, REALTIME={"TAILER": "embedded"}):
        listener, chance = await client(), random.Random(seed)
        for number in range(40):
            await write(number)
            if chance.random() < 0.3:
                await handed_out()
        await check_heard(listener, [str(n) for n in range(40)])
        assert hub().counters.resyncs == 0


@redis_goes
@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_redis_that_goes_and_comes_back_costs_no_change(
    kind: str, own_redis: Redis, client: Any
) -> None:
    with over(kind, own_redis.url):
        listener = await client()
        await write("before")
        own_redis.kill()
        await write(*range(5))
        await check_heard(listener, ["before", *map(str, range(5))])
        await auntil(lambda: not hub().bus.healthy)
        await write(*range(5, 10))
        own_redis.start()
        await write(*range(10, 15))
        await auntil(lambda: hub().bus.healthy)
        heals = hub().counters.heals
        await write("after")
        await check_heard(listener, [*map(str, range(5, 15)), "after"])
        assert hub().counters.heals >= heals > 0
        assert hub().counters.layer_failures > 0
        assert hub().counters.resyncs == 0


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_redis_that_restarts_unnoticed_costs_no_change(
    kind: str, own_redis: Redis, client: Any
) -> None:
    with over(kind, own_redis.url):
        listener = await client()
        for round_ in range(3):
            own_redis.restart()
            await write(*(f"{round_}:{n}" for n in range(3)))
        await check_heard(listener, [f"{r}:{n}" for r in range(3) for n in range(3)])
        await auntil(lambda: hub().bus.healthy)


async def test_a_redis_that_forgets_everything_costs_no_change(
    own_redis: Redis, client: Any
) -> None:
    with over("core", own_redis.url):
        listener = await client()
        await write("before")
        own_redis.flush()
        await write("while nobody is in the group")
        await check_heard(listener, ["before", "while nobody is in the group"])
        await auntil(lambda: hub().counters.rejoins > 0 and hub().bus.healthy)
        heals = hub().counters.heals
        await write("after")
        await check_heard(listener, ["after"])
        assert hub().counters.heals == heals


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_redis_that_hangs_costs_no_change(kind: str, own_redis: Redis, client: Any) -> None:
    with over(kind, own_redis.url):
        listener = await client()
        own_redis.freeze()
        await write(*range(5))
        await check_heard(listener, [str(n) for n in range(5)])
        own_redis.thaw()
        await auntil(lambda: hub().bus.healthy)
        await write("after")
        await check_heard(listener, ["after"])


@redis_goes
async def test_while_the_layer_is_down_the_watch_looks_more_often(
    own_redis: Redis, client: Any
) -> None:
    with over("pubsub", own_redis.url):
        await client(MonitorTiming(fed=1.0, alone=0.05))
        own_redis.kill()
        await auntil(lambda: not hub().bus.healthy)
        looks = hub().counters.watch_reads
        await auntil(lambda: hub().counters.watch_reads > looks + 10)


async def test_a_message_of_a_former_epoch_disturbs_nobody(layer: str, client: Any) -> None:
    listener = await client()
    await hub().bus.publish(Batch("0" * 32, 5, [], []))
    await write("after")
    await check_heard(listener, ["after"])
    assert hub().counters.resyncs == 0


async def test_a_log_that_lost_its_end_begins_a_new_epoch_and_clients_are_told(
    client: Any,
) -> None:
    # A backup was restored, or a standby took over that had not heard everything.
    with over("memory"):
        listener = await client()
        await write(*range(5))
        await check_heard(listener, [str(n) for n in range(5)])
        epoch = hub().position.epoch

        def lose_the_end() -> None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "DELETE FROM realtime_wal WHERE id IN"
                    " (SELECT entry_id FROM realtime_wal_number WHERE seq > 2)"
                )
                cursor.execute("UPDATE realtime_head SET seq = 2")

        await db(lose_the_end)
        told = await listener.until(lambda frame: frame[3] == "system")
        assert told[4]["message"] == "resync required"
        await auntil(lambda: hub().position.epoch != epoch)
        head = await db(lambda: read_head(connection))
        assert head.epoch == hub().position.epoch
        await write("after")
        assert (await listener.change())["record"]["title"] == "after"


async def test_a_full_inbox_is_healed_from_the_log(client: Any) -> None:
    with over("memory"):
        listener = await client()
        here = hub()
        here.dispatcher.inbox_limits = InboxLimits(batches=2)
        # The dispatcher cannot come to its inbox meanwhile: nothing here awaits.
        for _ in range(5):
            here.dispatcher.receive(Batch(here.position.epoch, 0, [], []))
        assert here.counters.inbox_full > 0
        await write(*range(5))
        await check_heard(listener, [str(n) for n in range(5)])
