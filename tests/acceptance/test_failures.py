"""Parts that die, stop or forget, under steady writes: in the end nobody has missed anything.

Two servers, two tailers, one PostgreSQL, one Redis, all real, and clients that resume. Whatever the
fault: every client heard every change it may see, once, in order, and the log has no gap. How long
changes were held up is written to the log `rowcast.figures` (show it with
`-o log_cli=true --log-cli-level=INFO`) and asserted nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support.base_databases import BaseDatabase, base_database
from tests.acceptance.support.deployment import Deployment, Program, deployed
from tests.acceptance.support.final_checks import (
    Row,
    check_follower,
    check_log,
    longest_lag,
    until_numbered,
)
from tests.acceptance.support.resuming_client import Follower
from tests.acceptance.support.server import PATIENCE, SERVICE_KEY
from tests.acceptance.support.worlds import create_usual_policies
from tests.support import redis as redises
from tests.support.redis import Redis
from tests.support.tokens import token
from tests.support.waiting import auntil

figures = logging.getLogger("rowcast.figures")

LAYERS = ("core", "pubsub")
KINDS = ("daphne", "uvicorn")
STEADY = 30


@pytest.fixture(scope="module")
def base() -> Iterator[BaseDatabase]:
    """A server of the module's own, which its tests stop and crash."""
    with base_database() as made:
        yield made


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with redises.running_ours(tmp_path) as server:
        yield server


class Scene:
    """A deployment under steady writes, and those who follow it."""

    def __init__(self, world: Deployment, name: str) -> None:
        self.world = world
        self._name = name
        self._me = world.orm.user("me")
        self._other = world.orm.user("other")
        self._fault_at = 0.0
        mine = token(self._me)
        servers = world.servers

        def is_mine(row: Row) -> bool:
            return row["owner_id"] == self._me or bool(row["is_public"])

        def is_public(row: Row) -> bool:
            return bool(row["is_public"])

        everything: Callable[[Row], bool] = lambda row: True  # noqa: E731
        self.followers: dict[Follower, Callable[[Row], bool]] = {}
        for first in range(len(servers)):
            for label, may_see, options in (
                ("service", everything, {"key": SERVICE_KEY}),
                ("me", is_mine, {"token": mine}),
                ("anybody", is_public, {}),
                ("filtered", is_public, {"key": SERVICE_KEY, "filter_": "is_public=eq.true"}),
            ):
                name = f"{label} at {first}"
                follower = Follower(name, servers, first=first, **options)  # type: ignore[arg-type]
                self.followers[follower] = may_see

    async def begin(self) -> None:
        for follower in self.followers:
            await follower.start()
        self.world.write([self._me, self._other], connections=2)
        await self.flows()

    async def flows(self, count: int = STEADY) -> None:
        """Returns when more has come to everybody."""
        await asyncio.gather(*(follower.until_more(count) for follower in self.followers))

    def fault(self) -> None:
        """From here on delays are the fault's."""
        self._fault_at = time.time()

    async def reckon(self) -> None:
        """End the writing and check everything."""
        now = time.time()
        await asyncio.to_thread(self.world.finish_writing)
        self.world.orm.reconnect()
        await until_numbered(self.world)
        entries = check_log(self.world.orm)
        for follower, may_see in self.followers.items():
            await check_follower(follower, entries, may_see)
        service = [f for f in self.followers if f.name.startswith("service")]
        silence = max(f.longest_silence(self._fault_at, now) for f in service)
        lag = max(longest_lag(f, entries) for f in service)
        figures.info(
            "%s: %s changes; longest silence %.2f s, longest time from commit to client %.2f s",
            self._name,
            len(entries),
            silence,
            lag,
        )

    async def end(self) -> None:
        for follower in self.followers:
            await follower.stop()


@pytest.fixture
async def play(
    base: BaseDatabase, own_redis: Redis, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., Any]]:
    """`await play(layer="core", kind="daphne")` is a scene that has begun."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(layer: str = "pubsub", kind: str = "uvicorn", **realtime: Any) -> Scene:
            world = Deployment(tmp_path, base.database(), own_redis, layer, realtime)
            stack.enter_context(deployed(world))
            create_usual_policies(world.orm)
            await asyncio.to_thread(world.start, kind, kind, tailers=2)
            scene = Scene(world, request.node.name)
            stack.push_async_callback(scene.end)
            await scene.begin()
            return scene

        yield make


async def another_leads(world: Deployment, former: Program) -> Program:
    async def another() -> Program | None:
        leader = await asyncio.to_thread(world.leader)
        return None if leader is former else leader

    found: Program = await auntil(another, "another leader", patience=PATIENCE, every=0.02)
    return found


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_leader_that_is_killed(play: Any, layer: str) -> None:
    scene = await play(layer)
    leader = scene.world.leader()
    scene.fault()
    leader.kill()
    await another_leads(scene.world, leader)
    await scene.flows()
    # It comes back, as a standby, and may lead again.
    leader.start()
    await asyncio.to_thread(leader.until_says, "Tailing", 2)
    scene.world.leader().kill()
    await scene.flows()
    assert scene.world.leader() is leader
    await scene.reckon()


async def test_a_leader_that_is_stopped_for_a_while(play: Any) -> None:
    scene = await play()
    leader = scene.world.leader()
    scene.fault()
    leader.freeze()
    successor = await another_leads(scene.world, leader)
    await scene.flows()
    leader.thaw()
    await scene.flows()
    # The one that slept has numbered nothing: whatever it tried belongs to a former term.
    assert scene.world.leader() is successor
    await scene.reckon()


async def test_a_leader_that_is_asked_to_end(play: Any) -> None:
    scene = await play()
    leader = scene.world.leader()
    scene.fault()
    assert await asyncio.to_thread(leader.stop) == 0
    await another_leads(scene.world, leader)
    await scene.flows()
    await scene.reckon()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_killed(play: Any, kind: str) -> None:
    scene = await play(kind=kind)
    scene.fault()
    scene.world.servers[0].kill()
    # Its clients go on at the other server, with what they have.
    await scene.flows()
    await asyncio.to_thread(scene.world.servers[0].start)
    scene.world.servers[1].kill()
    await scene.flows()
    await scene.reckon()
    assert all(follower.sockets >= 2 for follower in scene.followers)


async def test_a_worker_that_is_killed_while_it_reads_for_those_who_resume(play: Any) -> None:
    # A ring this short reaches nobody who was away: what they missed is read from the table.
    scene = await play(RING_SIZE=10)
    worker = await asyncio.to_thread(scene.world.work)
    scene.fault()
    for server in scene.world.servers:
        server.kill()
        worker.kill()
        await asyncio.to_thread(server.start)
        await scene.flows()
        worker.start()
    await scene.reckon()


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_redis_that_is_killed_and_comes_back(play: Any, layer: str) -> None:
    scene = await play(layer)
    scene.fault()
    scene.world.redis.kill()
    # Events arrive all the same: each server looks for itself.
    await scene.flows()
    scene.world.redis.start()
    await scene.flows()
    await scene.reckon()
    # No socket was disturbed.
    assert all(follower.sockets == 1 for follower in scene.followers)


@pytest.mark.parametrize("layer", LAYERS)
async def test_a_redis_that_restarts_at_once(play: Any, layer: str) -> None:
    scene = await play(layer)
    scene.fault()
    for _ in range(3):
        scene.world.redis.restart()
        await scene.flows()
    await scene.reckon()
    assert all(follower.sockets == 1 for follower in scene.followers)


async def test_a_redis_that_hangs(play: Any) -> None:
    scene = await play()
    scene.fault()
    scene.world.redis.freeze()
    await scene.flows()
    scene.world.redis.thaw()
    await scene.flows()
    await scene.reckon()
    assert all(follower.sockets == 1 for follower in scene.followers)


async def test_a_redis_that_forgets_everything(play: Any) -> None:
    scene = await play("core")
    scene.fault()
    for _ in range(3):
        scene.world.redis.flush()
        await scene.flows()
    await scene.reckon()


async def test_a_postgresql_that_restarts(play: Any, base: BaseDatabase) -> None:
    scene = await play()
    scene.fault()
    await asyncio.to_thread(base.postgres.restart)
    scene.world.orm.reconnect()
    await scene.flows()
    await scene.reckon()
    assert all(follower.sockets == 1 for follower in scene.followers)


async def test_a_postgresql_that_crashes(play: Any, base: BaseDatabase) -> None:
    scene = await play()
    scene.fault()
    await asyncio.to_thread(base.postgres.crash)
    await asyncio.to_thread(base.postgres.start)
    scene.world.orm.reconnect()
    await scene.flows()
    await scene.reckon()


async def test_everything_at_once(play: Any, base: BaseDatabase) -> None:
    scene = await play(kind="daphne")
    world = scene.world
    scene.fault()
    leader = world.leader()
    leader.kill()
    world.servers[0].kill()
    world.redis.kill()
    await asyncio.to_thread(base.postgres.crash)
    await asyncio.to_thread(base.postgres.start)
    world.redis.start()
    await asyncio.to_thread(world.servers[0].start)
    leader.start()
    world.orm.reconnect()
    await scene.flows()
    await scene.reckon()
