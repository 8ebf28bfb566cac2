"""Broadcasts from Python and over HTTP, stored and not, and what a rollback leaves of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.db import transaction

import realtime
from realtime.models import Message
from realtime.process import broadcast_sender
from realtime.process.hub import hub
from realtime.topics.broadcast import Broadcast
from tests.support.socket_client import Client, db
from tests.support.topics import allow, heard, sent
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


# --- from Python --------------------------------------------------------------------------------


async def test_a_thread_of_the_server_broadcasts_and_so_does_its_loop(listen: Any) -> None:
    client = await listen()
    await db(realtime.broadcast, "room", "ping", {"n": 1})
    assert await heard(client) == sent("ping", {"n": 1})
    await realtime.abroadcast("room", "ping", [2])
    assert await heard(client) == sent("ping", [2])
    realtime.broadcast("room", "ping", None)
    assert await heard(client) == sent("ping", None)


async def test_bytes_arrive_as_bytes(listen: Any) -> None:
    client = await listen()
    await db(realtime.broadcast, "room", "ev", b"\0\xff")
    assert await heard(client) == b"\x04\x0d\x02\x00\x00realtime:roomev\0\xff"


async def test_a_public_and_a_private_topic_of_one_name_are_two_rooms(listen: Any) -> None:
    await db(allow, "receive_broadcast")
    public, private = await listen(), await listen(config={"private": True})
    await db(lambda: realtime.broadcast("room", "ping", 1, private=True))
    assert await heard(private) == sent("ping", 1)
    await db(realtime.broadcast, "room", "ping", 2)
    assert await heard(public) == sent("ping", 2)
    assert await private.silent()
    assert await public.silent()


async def test_inside_a_transaction_it_is_sent_on_commit_and_never_for_a_rollback(
    listen: Any,
) -> None:
    client = await listen()

    def work(fails: bool) -> None:
        with transaction.atomic():
            realtime.broadcast("room", "ping", {"fails": fails})
            if fails:
                transaction.set_rollback(True)

    await db(work, True)
    await db(work, False)
    assert await heard(client) == sent("ping", {"fails": False})


async def test_another_event_loop_and_a_thread_without_one_broadcast(listen: Any) -> None:
    client = await listen()
    for work in (
        lambda: asyncio.run(realtime.abroadcast("room", "ping", 1)),
        lambda: realtime.broadcast("room", "ping", 1),
    ):
        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert await heard(client) == sent("ping", 1)


async def test_where_only_the_log_reaches_the_servers_it_carries_the_broadcast(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await listen()
    # As in a shell beside a server whose layer is in its memory.
    monkeypatch.setattr(broadcast_sender, "server_sender", lambda: None)
    await db(realtime.broadcast, "room", "ping", {"n": 1})
    assert await heard(client) == sent("ping", {"n": 1})
    await realtime.abroadcast("room", "ping", b"x")
    assert await heard(client) == b"\x04\x0d\x04\x00\x00realtime:roompingx"
    assert await db(Message.objects.count) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("", "e", 1), ValueError, "topic must not be empty"),
        (("t", "", 1), ValueError, "event must not be empty"),
        (("\ud800", "e", 1), ValueError, "topic must be valid Unicode"),
        ((7, "e", 1), TypeError, "topic must be a string, not int"),
        (("realtime:t", "e", 1), ValueError, "write the topic without 'realtime:': 't'"),
        (("t", "e", object()), TypeError, "the payload cannot be written as JSON"),
        (("t", "e", "x" * 70_000), ValueError, "the payload has 70002 bytes"),
    ],
)
def test_what_cannot_be_sent_is_said_at_once(
    arguments: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        realtime.broadcast(*arguments)


# --- stored -------------------------------------------------------------------------------------


# --- over HTTP ----------------------------------------------------------------------------------


# --- stored by a client -------------------------------------------------------------------------


# --- fairness -----------------------------------------------------------------------------------


async def test_a_flooded_topic_holds_up_neither_another_nor_a_row_change(
    listen: Any, granted: Any
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()
    for topic in ("realtime:noisy", "realtime:quiet"):
        await client.join(topic)
    one = hub()
    taken = [one.broadcasts.put(Broadcast("noisy", False, "e", b"1", 1)) for _ in range(3_000)]
    assert one.broadcasts.put(Broadcast("quiet", False, "e", b"2", 1))
    await db(Note.objects.create, title="meanwhile")
    # A topic has its share of the queue and no more.
    assert 900 < sum(taken) < 3_000
    order: list[str] = []
    while "realtime:quiet" not in order or "realtime:room" not in order:
        order.append((await client.receive())[2])
    assert order.index("realtime:quiet") < 200
    await client.close()


async def test_a_topic_that_nobody_hears_here_costs_nothing(listen: Any) -> None:
    await listen()
    await db(realtime.broadcast, "elsewhere", "e", 1)
    await db(realtime.broadcast, "room", "e", 1)
    await auntil(lambda: hub().counters.broadcasts_received == 1)
