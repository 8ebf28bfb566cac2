"""Presence and broadcast over several servers that die, on PostgreSQL and Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime.process.registry import LEASE_SECONDS
from tests.acceptance.support.base_databases import BaseDatabase
from tests.acceptance.support.deployment import Deployment, deployed
from tests.acceptance.support.node_client import Node
from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.server import SERVICE_KEY
from tests.acceptance.support.soak import Soak
from tests.support.redis import Redis

# A lease, until somebody looks, and until it is told.
_GONE_SECONDS = LEASE_SECONDS + 20


@pytest.fixture
def deploy(base: BaseDatabase, redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def make(*kinds: str, layer: str = "pubsub", **realtime: Any) -> Deployment:
        made.append(Deployment(tmp_path, base.database(), redis, layer, realtime))
        # On an in-memory layer each server tails the log itself.
        made[-1].start(*kinds, tailers=0 if layer == "memory" else 1)
        return made[-1]

    yield make
    for deployment in made:
        with deployed(deployment):
            pass


async def present(peer: RawClient, name: str) -> None:
    await peer.join("room", presence={"key": name, "enabled": True})
    payload = {"event": "track", "payload": {"name": name}}
    reply = await peer.push("realtime:room", "presence", payload, "1")
    assert reply["status"] == "ok", reply


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_the_members_of_a_server_that_ends_leave_and_nobody_else(
    deploy: Any, how: str
) -> None:
    world = deploy("uvicorn", "daphne")
    staying, going = world.servers
    async with await RawClient.open(staying) as one, await RawClient.open(going) as two:
        await present(one, "stays")
        await present(two, "goes")
        for peer in (one, two):
            await peer.until(
                lambda f: f.event.startswith("presence_") and '"goes"' in f.text and "_" in f.text
            )
        start = len(one.frames)
        began = time.monotonic()
        getattr(going, how)()
        left = await one.until(
            lambda f: f.event == "presence_diff" and "goes" in f.payload["leaves"],
            start=start,
            patience=_GONE_SECONDS,
        )
        assert set(left.payload["leaves"]) == {"goes"}
        assert time.monotonic() - began < 60
    async with await RawClient.open(staying) as late:
        await late.join("room", presence={"enabled": True})
        state = await late.until(lambda f: f.event == "presence_state")
        assert "goes" not in state.payload


@pytest.mark.parametrize("layer", ["core", "pubsub", "memory"])
async def test_python_in_another_process_reaches_the_clients_of_every_server(
    deploy: Any, layer: str
) -> None:
    world = deploy("daphne", "uvicorn", layer=layer)
    peers = [await RawClient.open(server, key=SERVICE_KEY) for server in world.servers]
    try:
        for peer in peers:
            await peer.join("room", private=True)
        for durable in (False, True):
            world.orm.broadcast("room", "said", {"durable": durable}, private=True, durable=durable)
        for peer in peers:
            heard = [
                await peer.until(
                    lambda f, d=durable: (
                        f.event == "broadcast" and f.payload["payload"] == {"durable": d}
                    )
                )
                for durable in (False, True)
            ]
            assert ["meta" in frame.payload for frame in heard] == [False, True]
            assert sum(frame.event == "broadcast" for frame in peer.frames) == 2
    finally:
        for peer in peers:
            await peer.close()


async def test_official_clients_on_two_servers_are_in_one_room(deploy: Any, node: Node) -> None:
    world = deploy("daphne", "fanout")
    clients = {"ann": "2.0.0", "bob": "1.0.0", "cleo": "2.0.0"}
    for number, (client, vsn) in enumerate(clients.items()):
        await node.open(world.servers[number % 2], client, vsn=vsn)
        config = {"broadcast": {"ack": True}, "presence": {"key": client, "enabled": True}}
        await node.subscribe("room", client=client, broadcasts=True, presence=True, config=config)
        payload = {"name": client}
        assert await node.do("track", client=client, channel="room", payload=payload) == "ok"
    for client in clients:
        await node.until(
            lambda e, c=client: (
                e["event"] == "presence" and e["client"] == c and set(e["state"]) == set(clients)
            )
        )
    for sender in clients:
        await node.do("send", client=sender, channel="room", name=sender, payload={})
    await node.do("httpSend", client="ann", channel="room", name="http", payload={"n": 1})
    for client in clients:
        wanted = (set(clients) | {"http"}) - {client}
        heard: set[str] = set()
        while heard != wanted:
            event = await node.until(
                lambda e, c=client, h=frozenset(heard): (
                    e["event"] == "broadcast"
                    and e["client"] == c
                    and e["payload"]["event"] not in h
                )
            )
            heard.add(event["payload"]["event"])
    start = len(node.events)
    await node.do("cut", client="bob")
    await node.until(
        lambda e: e["event"] == "leave" and e["client"] == "ann" and e["key"] == "bob", start=start
    )


async def test_a_crowd_that_comes_and_goes_while_servers_die_ends_with_the_truth(
    deploy: Any,
) -> None:
    limits = {"presence_per_30_seconds": None, "joins_per_second": None}
    world = deploy("uvicorn", "uvicorn", LIMITS=limits)
    victim = world.servers[1]

    def kill() -> None:
        victim.kill()
        victim.start()

    soak = Soak(world.servers, clients=40, topics=5)
    try:
        await soak.run(15, kill, every=6)
        await soak.settle(_GONE_SECONDS)
    finally:
        await soak.end()
    assert soak.counts["reconnects"] > 0
