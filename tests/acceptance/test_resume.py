"""Clients that come back with a cursor: what they missed comes first, once, then life goes on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.support.node_client import Node
from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.raw_client import Frame, RawClient
from tests.acceptance.support.worlds import World
from tests.support.tokens import token

ALL = {"event": "*", "schema": "public", "table": "zoo_note"}

_names = itertools.count()


def someone(world: World) -> int:
    return world.orm.user(f"resume-{next(_names)}")


def titles(peer: RawClient) -> list[str]:
    return [frame.data["record"]["title"] for frame in peer.changes()]


CURSORS: dict[str, Callable[[Frame, str], Any]] = {
    "seq": lambda frame, epoch: frame.data["seq"],
    "timestamp": lambda frame, epoch: frame.data["commit_timestamp"],
    "epoch and seq": lambda frame, epoch: f"{epoch}:{frame.data['seq']}",
}


@pytest.mark.parametrize("kind", CURSORS)
async def test_a_cursor_brings_all_that_came_after_it_once(world: World, kind: str) -> None:
    ada, bob = someone(world), someone(world)
    async with await RawClient.open(world.server) as peer:
        ref = await peer.join("cursor", ALL, token=token(ada))
        epoch = (await peer.reply(ref)).payload["response"]["epoch"]
        for name in ("one", "two"):
            world.orm.note(owner=ada, title=name)
        await peer.until_row(title="two")
        cursor = CURSORS[kind](await peer.until_row(title="one"), epoch)
    world.orm.note(owner=bob, title="not hers")
    world.orm.note(owner=ada, title="three")
    async with await RawClient.open(world.server) as peer:
        await peer.join("cursor", {**ALL, "since": cursor}, token=token(ada))
        world.orm.note(owner=ada, title="four")
        await peer.until_row(title="four")
        assert titles(peer) == ["two", "three", "four"]


async def test_a_cursor_honours_the_filter_and_what_may_be_seen_now(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("start", ALL, token=token(me))
        world.orm.note(owner=me, title="start")
        since = (await peer.until_row(title="start")).data["seq"]
    world.orm.many("note", [{"owner_id": me, "title": str(n), "score": n} for n in range(10)])
    binding = {**ALL, "filter": "score=gte.7", "since": since}
    async with await RawClient.open(world.server) as peer:
        await peer.join("filtered", binding, token=token(me))
        await peer.until_row(title="9")
        assert titles(peer) == ["7", "8", "9"]


async def test_a_cursor_of_another_log_is_told_to_start_over(world: World) -> None:
    me = someone(world)
    since = f"{'0' * 32}:1"
    async with await RawClient.open(world.server) as peer:
        await peer.join("foreign", {**ALL, "since": since}, token=token(me))
        told = await peer.system("foreign", "resume")
        assert told.payload["status"] == "ok"
        assert told.payload["message"] == "resync required"
        world.orm.note(owner=me, title="live")
        await peer.until_row(title="live")
        assert titles(peer) == ["live"]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_the_javascript_client_carries_a_cursor_through(
    world: World, node: Node, vsn: str
) -> None:
    me = someone(world)
    await node.open(world.server, vsn=vsn, token=token(me))
    await node.subscribe("before", ALL)
    world.orm.note(owner=me, title="seen")
    since = (await node.change("before", title="seen"))["commit_timestamp"]
    await node.do("remove", client="me", channel="before")
    world.orm.note(owner=me, title="missed")
    await node.subscribe("after", {**ALL, "since": since})
    world.orm.note(owner=me, title="live")
    await node.change("after", title="live")
    heard = [event["payload"]["new"]["title"] for event in node.changes("after")]
    assert heard == ["missed", "live"]


@pytest.mark.timeout(300)
async def test_through_crashes_of_the_server_a_client_hears_everything_exactly_once(
    fresh: Any,
) -> None:
    world = fresh()
    me = someone(world)
    total = 4 * 300
    heard: list[Frame] = []
    since = world.orm.head()[1]
    writer = OrmProcess(world.server.database)
    try:
        for round_ in range(4):
            async with await RawClient.open(world.server) as peer:
                await peer.join("mine", {**ALL, "since": since}, token=token(me))
                writer.begin("write_notes", round_, 300, [me], per_transaction=2)
                seen = len(peer.changes())
                await peer.until(lambda frame: frame.event == "postgres_changes", start=seen)
                world.server.kill()
                await peer.until_closed()
                heard += peer.changes()
            since = heard[-1].data["seq"]
            await asyncio.to_thread(writer.finish)
            world.server.start()
        async with await RawClient.open(world.server) as peer:
            await peer.join("mine", {**ALL, "since": since}, token=token(me))
            world.orm.note(owner=me, title="the end")
            await peer.until_row(title="the end")
            heard += peer.changes()
    finally:
        writer.close()
    seqs = [frame.data["seq"] for frame in heard]
    assert seqs == [seq for seq, *_ in world.orm.log()]
    assert len(seqs) == total + 1
