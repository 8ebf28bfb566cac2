"""Processes that are taken away in the middle of their work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.resuming_client import Follower
from tests.acceptance.support.worlds import World
from tests.support.tokens import token

ALL = {"event": "*", "schema": "public", "table": "zoo_note"}


async def until_numbered(world: World) -> None:
    """Returns when the server has numbered all that was captured, and handed it out."""
    async with await RawClient.open(world.server) as peer:
        await peer.join("waiting", ALL)
        world.orm.note(title="last:0", is_public=True)
        await peer.until_row(title="last:0")
    assert world.orm.backlog() == 0


def check_log(world: World) -> None:
    """Every committed change has exactly one number, and no number is missing or doubled."""
    numbers = world.orm.numbers()
    _, head = world.orm.head()
    assert sorted(numbers) == list(range(1, head + 1))
    notes = world.orm.sql("SELECT id, title FROM zoo_note ORDER BY id")
    entries = world.orm.log()
    assert sorted(int(key) for *_, key in entries) == [pk for pk, _ in notes]
    # Each writer's own changes keep their order.
    title = dict(notes)
    order: dict[str, list[int]] = {}
    for *_, key in entries:
        writer, _, number = title[int(key)].partition(":")
        order.setdefault(writer, []).append(int(number))
    assert all(numbers == sorted(numbers) for numbers in order.values())


@pytest.mark.timeout(300)
async def test_a_server_killed_among_writes_loses_and_doubles_nothing(fresh: Any) -> None:
    world = fresh()
    me = world.orm.user("me")
    epoch, _ = world.orm.head()
    writers = [OrmProcess(world.server.database) for _ in range(2)]
    try:
        for round_ in range(4):
            async with await RawClient.open(world.server) as peer:
                await peer.join("mine", ALL, token=token(me))
                for number, writer in enumerate(writers):
                    writer.begin("write_notes", 2 * round_ + number, 400, [me], per_transaction=3)
                await peer.until(lambda frame: frame.event == "postgres_changes")
                world.server.kill()
            for writer in writers:
                await asyncio.to_thread(writer.finish)
            world.server.start()
        await until_numbered(world)
        check_log(world)
        assert world.orm.head()[0] == epoch
        assert len(world.orm.log()) == 4 * 2 * 400 + 1
    finally:
        for writer in writers:
            writer.close()


async def test_after_a_crash_a_client_hears_what_comes_next(fresh: Any) -> None:
    world = fresh()
    me = world.orm.user("me")
    async with await RawClient.open(world.server) as peer:
        await peer.join("mine", ALL, token=token(me))
        world.orm.note(owner=me, title="0:0")
        await peer.until_row(title="0:0")
        world.server.kill()
        assert await peer.until_closed() == 1006
    world.orm.note(owner=me, title="0:1")
    world.server.start()
    async with await RawClient.open(world.server) as peer:
        await peer.join("mine", ALL, token=token(me))
        world.orm.note(owner=me, title="0:2")
        last = await peer.until_row(title="0:2")
        assert last.data["seq"] == world.orm.head()[1]
    await until_numbered(world)
    check_log(world)


async def test_a_writer_killed_among_writes_leaves_only_what_it_committed(fresh: Any) -> None:
    world = fresh()
    me = world.orm.user("me")
    # The writer has no pace: a reader that is slower on this machine is cut off, and resumes.
    reader = Follower("reader", [world.server], token=token(me))
    try:
        await reader.start()
        writer = OrmProcess(world.server.database)
        writer.begin("write_notes", 0, 100_000, [me], per_transaction=7)
        await reader.until_more(1)
        writer.kill()
        world.orm.note(owner=me, title="1:0")
        await reader.until(lambda: reader.heard[-1].title == "1:0")
    finally:
        await reader.stop()
    check_log(world)
    (count,) = world.orm.sql("SELECT count(*) FROM zoo_note")[0]
    assert [heard.title for heard in reader.heard] == [f"0:{n}" for n in range(count - 1)] + ["1:0"]
    assert (count - 1) % 7 == 0
    assert reader.resyncs == 0
