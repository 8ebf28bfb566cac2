"""`realtime.changes` in a server process: it is served by what serves the sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

import realtime
from auth_rls import disconnect
from realtime.process.hub import close_hub, hub
from realtime.wal import obstacles, triggers
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def take(stream: Any, count: int) -> list[str]:
    async with asyncio.timeout(30):
        return [(await anext(stream)).new["title"] for _ in range(count)]


@pytest.fixture
async def serving(granted: Callable[..., Any], connect: Callable[..., Any]) -> Any:
    """A socket that follows notes: the process is a server."""
    await db(granted, "view_note")
    client = await connect()
    await client.listen()
    return client


async def test_it_needs_no_follower_and_gets_what_a_socket_gets(serving: Any) -> None:
    async with realtime.changes(Note) as stream:
        assert not [t for t in threading.enumerate() if t.name == "rowcast-follower"]
        assert hub().dispatcher.subscriptions.channels.subscribed == 2
        for title in ("a", "b", "c"):
            await db(Note.objects.create, title=title)
        seen = [await anext(stream) for _ in range(3)]
        sent = [await serving.change() for _ in range(3)]
        assert [c.new for c in seen] == [data["record"] for data in sent]
        assert [c.seq for c in seen] == [data["seq"] for data in sent]
        assert [c.commit_timestamp for c in seen] == [data["commit_timestamp"] for data in sent]
    await auntil(lambda: hub().dispatcher.subscriptions.channels.subscribed == 1)


async def test_a_slow_consumer_delays_no_socket_and_loses_nothing(serving: Any) -> None:
    def insert(first: int) -> None:
        Note.objects.bulk_create(Note(title=str(n)) for n in range(first, first + 1_500))

    async with realtime.changes(Note) as stream:
        await db(insert, 0)
        await db(insert, 1_500)
        for number in range(3_000):
            assert (await serving.change())["record"]["title"] == str(number)
        assert stream.waiting <= 1_500
        assert await take(stream, 3_000) == list(map(str, range(3_000)))


async def test_the_end_of_the_server_ends_the_iteration(serving: Any) -> None:
    async def consume() -> list[str]:
        return [change.new["title"] async for change in realtime.changes(Note)]

    consuming = asyncio.create_task(consume())
    subscribed = hub().dispatcher.subscriptions.channels
    await auntil(lambda: subscribed.subscribed == 2, "it is subscribed")
    await db(Note.objects.create, title="a")
    await serving.change()
    await close_hub()
    assert await consuming == ["a"]


async def test_disconnect_ends_streams_too(serving: Any) -> None:
    ada = await db(User.objects.create_user, "ada")
    async with realtime.changes(Note, subject=ada) as stream:
        await db(disconnect, ada)
        with pytest.raises(realtime.AccessRevoked):
            await take(stream, 1)


async def test_a_table_that_loses_its_triggers_ends_it(serving: Any) -> None:
    async with realtime.changes(Note) as stream:
        await db(triggers.uninstall)
        try:
            # On SQLite a table lacks them while a migration runs, so it takes two looks.
            await hub().capture.look()
            await hub().capture.look()
            with pytest.raises(realtime.SubscriptionEnded, match="zoo_note"):
                await take(stream, 1)
            with pytest.raises(ValueError, match="zoo_note"):
                await anext(realtime.changes(Note))
        finally:
            await db(triggers.reconcile)
            await db(obstacles.look, "default")


async def test_a_filter_that_costs_too_much_ends_it(serving: Any) -> None:
    async with realtime.changes(Note, filter="body=not.match.[ab].{90}x") as stream:
        await db(Note.objects.create, title="a", body="abcd" * 5_000)
        with pytest.raises(realtime.SubscriptionEnded, match="cost"):
            await take(stream, 1)
