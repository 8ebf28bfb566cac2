"""client.js: its Node tests, which need no npm package, and one page of it on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.acceptance.support.client_page import TESTS, Page, node
from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.server import Server
from tests.acceptance.support.worlds import World
from tests.support.tokens import token

NOTES = {"event": "*", "schema": "public", "table": "zoo_note"}


def test_the_small_client_does_what_its_documentation_says() -> None:
    files = sorted(str(path) for path in TESTS.glob("*.test.mjs"))
    assert files, f"no tests in {TESTS}"
    run = subprocess.run(
        [node(), "--test", *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, f"node --test failed\n{run.stdout}\n{run.stderr}"


@contextlib.asynccontextmanager
async def page(
    server: Server, user: int, *bindings: dict[str, Any], **options: Any
) -> AsyncIterator[Page]:
    told = {
        "url": server.address("/realtime"),
        "token": token(user),
        "bindings": bindings or [NOTES],
        **options,
    }
    opened = await Page.opened("page.mjs", told)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_page_has_every_row_once_although_the_server_comes_and_goes(
    fresh: Callable[..., World], end: str
) -> None:
    world = fresh()
    me = world.orm.user("me")
    writer = OrmProcess(world.server.database)
    rounds, rows = 3, 200
    try:
        async with page(world.server, me) as it:
            await it.until_status("live")
            for round_ in range(rounds):
                seen = len(it.lines)
                writer.begin("write_notes", round_, rows, [me], per_transaction=2)
                await it.until(lambda line: "change" in line, seen)
                getattr(world.server, end)()
                await it.until_status("errored", seen)
                await asyncio.to_thread(writer.finish)
                world.server.start()
                await it.until_status("catching up", seen)
                if round_ == rounds - 1:
                    # The last one is caught up with in peace; the others are cut into.
                    await it.until_status("live", seen)
            world.orm.note(owner=me, title="the end")
            await it.until_title("the end")
    finally:
        writer.close()
    assert [line["seq"] for line in it.changes] == [seq for seq, *_ in world.orm.log()]
    assert len(it.changes) == rounds * rows + 1
    assert "resynced" not in it.statuses


async def test_a_page_that_was_closed_goes_on_from_the_cursor_it_kept(world: World) -> None:
    me = world.orm.user("keeper")
    async with page(world.server, me) as it:
        await it.until_status("live")
        world.orm.note(owner=me, title="seen")
        kept = (await it.until_title("seen"))["cursor"]
    world.orm.note(owner=me, title="missed")
    async with page(world.server, me, since=kept) as it:
        await it.until_title("missed")
        await it.until_status("live")
        world.orm.note(owner=me, title="live")
        await it.until_title("live")
        assert it.titles == ["missed", "live"]
        assert it.statuses == ["joining", "catching up", "live"]


async def test_a_page_with_a_cursor_of_another_log_is_told_to_read_its_rows(world: World) -> None:
    me = world.orm.user("stranger")
    async with page(world.server, me, since=f"{'0' * 32}:1") as it:
        await it.until_status("live")
        assert it.statuses == ["joining", "catching up", "resynced", "live"]
        assert {"resync": True} in it.lines
        world.orm.note(owner=me, title="after")
        epoch = world.orm.head()[0]
        line = await it.until_title("after")
        assert line["cursor"] == f"{epoch}:{line['seq']}"
