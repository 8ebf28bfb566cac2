"""Frames of a transaction with a receipt: who wrote gets it, live and after a resume, and nobody
else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

import realtime
from auth_rls import Subject
from realtime.wal.actor import acting, subject_name
from tests.support.socket_client import Client, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


def write(actor: Any, *titles: str, receipt: bool = True) -> str | None:
    with realtime.actor(actor), transaction.atomic():
        for title in titles:
            Note.objects.create(title=title)
        return realtime.receipt() if receipt else None


async def told(client: Client, count: int = 1) -> list[tuple[str, str | None]]:
    """Titles and receipts of the next changes."""
    changes = [await client.change() for _ in range(count)]
    return [(change["record"]["title"], change.get("tx")) for change in changes]


@pytest.fixture
async def ada(granted: Any) -> User:
    await db(granted, "view_note")
    return await user("ada")


async def test_only_the_sockets_of_the_writer_get_it(
    ada: User, connect: Callable[..., Any]
) -> None:
    bob = await user("bob")
    own = [await connect(token=token(ada.pk)) for _ in range(2)]
    others = [
        await connect(token=token(bob.pk)),
        await connect(),
        await connect(token=token(role="service_role")),
        await connect(token=token(ada.pk, role="service_role")),
        await connect(token=token(ada.pk, role="anon")),
    ]
    for client in (*own, *others):
        await client.listen()
    tx = await db(write, ada, "a", "b")
    await db(write, ada, "c", receipt=False)
    await db(write, bob, "d")
    await db(write, None, "e")
    await db(write, str(ada.pk), "f")
    mine = [("a", tx), ("b", tx), *((title, None) for title in "cdef")]
    for client in own:
        assert await told(client, 6) == mine
    for client in others[1:]:
        assert await told(client, 6) == [(title, None) for title in "abcdef"]
    assert [tx is not None for _, tx in await told(others[0], 6)] == [False] * 3 + [
        True,
        False,
        False,
    ]


async def test_a_user_without_a_django_user_gets_it_too(
    ada: User, connect: Callable[..., Any]
) -> None:
    subject = Subject.from_token
    own = await connect(token=token("somebody elsewhere"))
    other = await connect(token=token(ada.pk))
    for client in (own, other):
        await client.listen()

    def write_as() -> str:
        name = subject_name(subject(token("somebody elsewhere")))
        with acting(lambda: name), transaction.atomic():
            Note.objects.create(title="a")
            return realtime.receipt()

    tx = await db(write_as)
    assert await told(own) == [("a", tx)]
    assert await told(other) == [("a", None)]


async def test_a_resume_from_before_carries_it_for_the_writer_alone(
    ada: User, connect: Callable[..., Any]
) -> None:
    first = await connect(token=token(ada.pk))
    head = await first.listen()
    tx = await db(write, ada, "a", "b")
    assert await told(first, 2) == [("a", tx), ("b", tx)]
    since = f"{head['epoch']}:{head['seq']}"
    clients = [await connect(token=token(ada.pk)) for _ in range(3)]
    bob = await user("bob")
    clients += [await connect(token=token(bob.pk)) for _ in range(3)]
    await asyncio.gather(*(client.listen(since=since) for client in clients))

    def of(client: Client) -> list[tuple[str, str | None]]:
        changes = [frame[4]["data"] for frame in client.unread if frame[3] == "postgres_changes"]
        return [(change["record"]["title"], change.get("tx")) for change in changes]

    for client in clients:
        while len(of(client)) < 2:
            client.unread.append(await client.receive())
    assert [of(client) for client in clients[:3]] == [[("a", tx), ("b", tx)]] * 3
    assert [of(client) for client in clients[3:]] == [[("a", None), ("b", None)]] * 3


async def test_rows_of_a_snapshot_carry_none(ada: User, connect: Callable[..., Any]) -> None:
    await db(write, ada, "a")
    client = await connect(token=token(ada.pk))
    reply = await client.join(
        postgres_changes=[{"event": "*", "schema": "public", "table": "zoo_note", "snapshot": True}]
    )
    assert reply["status"] == "ok"
    change = await client.change()
    assert (change["record"]["title"], change["snapshot"], "tx" in change) == ("a", True, False)
    tx = await db(write, ada, "b")
    assert await told(client) == [("b", tx)]


async def test_what_comes_into_and_leaves_a_live_set_carries_it(
    ada: User, connect: Callable[..., Any]
) -> None:
    client = await connect(token=token(ada.pk))
    await client.listen(filter="title=eq.in", live=True)

    def rename() -> str:
        with realtime.actor(ada), transaction.atomic():
            note = Note.objects.create(title="out")
            note.title = "in"
            note.save()
            note.title = "out"
            note.save()
            return realtime.receipt()

    tx = await db(rename)
    changes = [await client.change() for _ in range(2)]
    assert [(change["type"], change["tx"]) for change in changes] == [
        ("INSERT", tx),
        ("DELETE", tx),
    ]


async def test_another_user_on_the_same_channel_of_a_socket_gets_none(
    ada: User, connect: Callable[..., Any]
) -> None:
    bob = await user("bob")
    client = await connect(token=token(ada.pk))
    await client.listen()
    tx = await db(write, ada, "a")
    assert await told(client) == [("a", tx)]
    await client.push("realtime:room", "access_token", {"access_token": token(bob.pk)})
    # The heartbeat is answered behind it.
    await client.reply(await client.push("phoenix", "heartbeat", {}))
    await db(write, ada, "b")
    assert await told(client) == [("b", None)]


async def test_changes_in_python_carry_it_for_their_subject(ada: User) -> None:
    bob = await user("bob")
    subjects = [Subject.from_user(ada), Subject.from_user(bob), None]
    streams = [realtime.changes(Note, subject=subject) for subject in subjects]
    async with streams[0] as own, streams[1] as other, streams[2] as service:
        tx = await db(write, ada, "a")
        await db(write, ada, "b", receipt=False)
        found = [[(await anext(one)).tx for _ in range(2)] for one in (own, other, service)]
    assert found == [[tx, None], [None, None], [None, None]]
