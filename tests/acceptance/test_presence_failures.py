"""Presence over two servers while the database, the bus or a server fails, on every layer: nobody
leaves who is there, and members who came meanwhile are shown everywhere."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support.base_databases import BaseDatabase, base_database
from tests.acceptance.support.deployment import Deployment, deployed
from tests.acceptance.support.raw_client import RawClient
from tests.support import redis as redises
from tests.support.redis import Redis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> Iterator[BaseDatabase]:
    """A server of the module's own, which its tests crash."""
    with base_database() as made:
        yield made


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with redises.running_ours(tmp_path) as server:
        yield server


@pytest.fixture
def deploy(base: BaseDatabase, redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def make(layer: str) -> Deployment:
        made.append(Deployment(tmp_path, base.database(), redis, layer))
        # On an in-memory layer each server tails the log itself.
        made[-1].start("uvicorn", "uvicorn", tailers=0 if layer == "memory" else 1)
        return made[-1]

    yield make
    for deployment in made:
        with deployed(deployment):
            print(deployment.logs)


async def come(peer: RawClient, name: str) -> None:
    await peer.join("room", presence={"key": name, "enabled": True})
    await peer.until(lambda f: f.event == "presence_state")
    await track(peer, name)


async def track(peer: RawClient, name: str, number: int = 1) -> None:
    payload = {"event": "track", "payload": {"name": name, "n": number}}
    reply = await peer.push("realtime:room", "presence", payload, "1")
    assert reply["status"] == "ok", reply


def there(peer: RawClient) -> dict[str, int]:
    """Who is present, as this peer was told, with what they tracked. Each reference comes once, and
    leaves only after it came."""
    refs: dict[str, tuple[str, int]] = {}

    def each(members: Any) -> Iterator[tuple[str, Any]]:
        for name, member in members.items():
            for meta in member["metas"]:
                yield name, meta

    for frame in peer.frames:
        if frame.event == "presence_state":
            refs = {meta["phx_ref"]: (name, meta["n"]) for name, meta in each(frame.payload)}
        elif frame.event == "presence_diff":
            for name, meta in each(frame.payload["joins"]):
                assert meta["phx_ref"] not in refs
                refs[meta["phx_ref"]] = name, meta["n"]
            for _, meta in each(frame.payload["leaves"]):
                del refs[meta["phx_ref"]]
    return dict(refs.values())


@asynccontextmanager
async def _nothing(world: Deployment, base: BaseDatabase) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _database_crashes(world: Deployment, base: BaseDatabase) -> AsyncIterator[None]:
    await asyncio.to_thread(base.postgres.crash)
    await asyncio.to_thread(base.postgres.start)
    yield


@asynccontextmanager
async def _redis_is_away(world: Deployment, base: BaseDatabase) -> AsyncIterator[None]:
    world.redis.kill()
    yield
    world.redis.start()


@asynccontextmanager
async def _redis_forgets(world: Deployment, base: BaseDatabase) -> AsyncIterator[None]:
    world.redis.flush()
    yield


@asynccontextmanager
async def _server_is_frozen(world: Deployment, base: BaseDatabase) -> AsyncIterator[None]:
    os.kill(world.servers[1].pid, signal.SIGSTOP)
    yield
    await asyncio.sleep(1.0)
    os.kill(world.servers[1].pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        ("memory", _nothing),
        ("memory", _database_crashes),
        ("core", _redis_is_away),
        ("core", _redis_forgets),
        ("pubsub", _redis_is_away),
        ("pubsub", _server_is_frozen),
        ("pubsub", _database_crashes),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("_").replace("_", "-"),
)
async def test_nobody_leaves_and_who_comes_is_shown_everywhere(
    deploy: Any, base: BaseDatabase, layer: str, fault: Any
) -> None:
    world = deploy(layer)
    first, second = world.servers
    async with (
        await RawClient.open(first) as ann,
        await RawClient.open(second) as bob,
        await RawClient.open(first) as cleo,
    ):
        await come(ann, "ann")
        await come(bob, "bob")
        await cleo.join("room", presence={"key": "cleo", "enabled": True})
        for peer in (ann, bob, cleo):
            await peer.until(lambda _, p=peer: there(p) == {"ann": 1, "bob": 1})
        heard = len(bob.frames)
        async with fault(world, base):
            await track(ann, "ann", 2)
            await track(cleo, "cleo")
        everybody = {"ann": 2, "bob": 1, "cleo": 1}
        for peer in (ann, bob, cleo):
            await peer.until(lambda _, p=peer: there(p) == everybody)
        # `ann` alone changed, from the one to the other.
        diffs = [f.payload for f in bob.frames[heard:] if f.event == "presence_diff"]
        assert {name for diff in diffs for name in diff["leaves"]} == {"ann"}
        async with await RawClient.open(second) as late:
            await late.join("room", presence={"enabled": True})
            await late.until(lambda f: f.event == "presence_state")
            await late.until(lambda _: there(late) == everybody)
