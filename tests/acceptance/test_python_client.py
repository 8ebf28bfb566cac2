"""The official Python client, unmodified, against a real server."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support.node_client import Node
from tests.acceptance.support.server import ANON_KEY, ROOT
from tests.acceptance.support.worlds import World
from tests.support.at_hand import without
from tests.support.tokens import token

FOLDER = Path(__file__).resolve().parent / "python"
_names = itertools.count()


def interpreter() -> Path:
    """The client's own environment, which scripts/test makes."""
    return ROOT / os.environ.get("CLIENT_VENV", ".venv-python-client") / "bin" / "python"


@pytest.fixture
async def python() -> AsyncIterator[Node]:
    """The client's process; it speaks as the one in Node.js does."""
    if not interpreter().exists():
        reason = "the Python client is not installed; scripts/test does that"
        without(reason)
    started = await Node.start(interpreter(), "driver.py", cwd=FOLDER, stderr=None)
    try:
        yield started
    finally:
        await started.close()


async def opened(world: World, python: Node, client: str, sub: int | None = None) -> str:
    url = f"{world.server.origin}/realtime/v1"
    bearer = None if sub is None else token(sub)
    await python.do("open", client=client, url=url, key=ANON_KEY, token=bearer)
    return client


async def subscribed(python: Node, client: str, **options: Any) -> None:
    await python.do("subscribe", client=client, channel="room", **options)
    await python.until(
        lambda e: e["event"] == "status" and e["client"] == client and e["status"] == "SUBSCRIBED"
    )


async def test_row_changes_arrive_at_who_may_see_them(world: World, python: Node) -> None:
    me, other = (world.orm.user(f"pythonist-{next(_names)}") for _ in range(2))
    await opened(world, python, "me", me)
    await subscribed(python, "me", binding={"event": "*", "table": "zoo_note"})
    await python.until(lambda e: e["event"] == "system" and "Subscribed" in e["payload"])
    world.orm.note(owner=other, title="hidden")
    pk = world.orm.note(owner=me, title="mine")
    world.orm.delete("note", pk)
    await python.until(
        lambda e: e["event"] == "change" and e["payload"]["data"]["type"] == "DELETE"
    )
    changes = [e["payload"]["data"] for e in python.events if e["event"] == "change"]
    assert [change["type"] for change in changes] == ["INSERT", "DELETE"]
    assert changes[0]["record"]["title"] == "mine"


async def test_broadcasts_arrive(world: World, python: Node) -> None:
    for client in ("one", "two"):
        await opened(world, python, client)
        await subscribed(python, client, config={"broadcast": {"ack": True, "self": False}})
    await python.do("send", client="one", channel="room", payload={"n": 1})
    heard = await python.until(lambda e: e["event"] == "heard")
    assert (heard["client"], heard["payload"]["payload"]) == ("two", {"n": 1})


async def test_presence_comes_and_goes(world: World, python: Node) -> None:
    for client in ("one", "two"):
        await opened(world, python, client)
        config = {"presence": {"key": client, "enabled": True}}
        await subscribed(python, client, config=config, presence=True)
        await python.do("track", client=client, channel="room", payload={"name": client})

    async def sees(client: str, wanted: set[str]) -> None:
        await python.until(
            lambda e: (
                e["event"] == "presence" and e["client"] == client and set(e["state"]) == wanted
            ),
            start=start,
        )

    start = 0
    for client in ("one", "two"):
        await sees(client, {"one", "two"})
    start = len(python.events)
    await python.do("untrack", client="two", channel="room")
    await sees("one", {"one"})
    await python.do("track", client="two", channel="room", payload={"name": "again"})
    await sees("one", {"one", "two"})
    start = len(python.events)
    await python.do("unsubscribe", client="two", channel="room")
    await sees("one", {"one"})
