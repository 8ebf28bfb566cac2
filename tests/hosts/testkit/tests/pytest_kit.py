"""The plugin as pytest finds it: nothing here or in pytest.ini names it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from desk.models import Draft, Ticket

from realtime.testing import (
    SetupError,
    assert_hidden,
    assert_visible,
    captured_changes,
    policy_matrix,
    realtime_server,
)

from .base import ANYBODY, MATRIX, left_over, people, ticket


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert left_over() == []


@pytest.mark.django_db
def test_without_commits() -> None:
    ada, bob = people()
    with captured_changes() as changes:
        lamp = ticket(ada)
    assert [(change.type, change.pk) for change in changes] == [("INSERT", lamp.pk)]
    assert changes.delivered_to(ada) == list(changes)
    assert changes.delivered_to(bob) == []
    assert_visible(ada, lamp)
    assert_hidden(bob, lamp)
    assert policy_matrix([ada, bob, ANYBODY], [lamp], ["view", "delete"]) == MATRIX
    with pytest.raises(AssertionError, match="owners: false"):
        assert_visible(bob, lamp)


@pytest.mark.parametrize("again", [1, 2])
def test_live_without_async(again: int, realtime_client: Any) -> None:
    ada, bob = people()
    mine = realtime_client(user=ada).join("desk", changes=[Ticket])
    others = realtime_client(user=bob).join("desk", changes=[Ticket])
    lamp = ticket(ada)
    assert mine.next_change(Ticket, type="INSERT").pk == lamp.pk
    others.nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("again", [1, 2])
async def test_live(again: int, realtime_client: Any) -> None:
    tasks = asyncio.all_tasks()
    ada, bob = await sync_to_async(people)()
    mine = await (await realtime_client(user=ada)).join("desk", changes=[Ticket])
    others = await (await realtime_client(user=bob)).join("desk", changes=[Ticket])
    lamp = await Ticket.objects.acreate(owner=ada, title="Lamp")
    assert (await mine.next_change(Ticket, type="INSERT")).pk == lamp.pk
    await others.nothing()
    await mine.broadcast("said", {"text": "hello"})
    assert (await others.next_broadcast("said")).payload == {"text": "hello"}
    await mine.track()
    await others.until(lambda: others.presence())
    with pytest.raises(SetupError, match="Draft is not published"):
        await (await realtime_client()).join("desk", changes=[Draft])
    await realtime_client.stop()
    assert asyncio.all_tasks() == tasks


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
async def test_live_without_the_fixture() -> None:
    ada, _ = await sync_to_async(people)()
    async with realtime_server() as connect:
        channel = await (await connect(user=ada)).join("desk", changes=[Ticket])
        await Ticket.objects.acreate(owner=ada, title="Lamp")
        await channel.next_change(Ticket)


@pytest.mark.django_db
def test_live_inside_a_transaction_is_refused_with_what_to_do() -> None:
    with pytest.raises(SetupError, match="use the fixture transactional_db"), realtime_server():
        raise AssertionError("it started")


@pytest.mark.asyncio
@pytest.mark.django_db
async def test_live_beside_a_transaction_is_refused_in_async_code_too() -> None:
    with pytest.raises(SetupError, match="use the fixture transactional_db"):
        async with realtime_server():
            raise AssertionError("it started")
