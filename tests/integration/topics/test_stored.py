"""Stored broadcasts: they stand among the changes of their transaction, and are replayed."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

import realtime
from realtime.models import Message
from realtime.protocol.serializer import binary_broadcast
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.topics import TOPIC, allow, heard, sent
from tests.support.waiting import PATIENCE_SECONDS, auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def test_a_durable_broadcast_stands_among_the_changes_of_its_transaction(
    listen: Any, granted: Any
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    await client.listen()

    def work() -> None:
        with transaction.atomic():
            Note.objects.create(title="one")
            realtime.broadcast("room", "between", {"n": 1}, durable=True)
            Note.objects.create(title="two")

    await db(work)
    frames = [await client.receive() for _ in range(3)]
    assert [frame[3] for frame in frames] == ["postgres_changes", "broadcast", "postgres_changes"]
    message = await db(Message.objects.get)
    assert frames[1][4] == {**sent("between", {"n": 1}), "meta": {"id": str(message.id)}}
    await client.close()


async def test_a_durable_broadcast_of_a_rollback_is_never_sent(listen: Any) -> None:
    client = await listen()

    def work() -> None:
        with transaction.atomic():
            realtime.broadcast("room", "lost", 1, durable=True)
            transaction.set_rollback(True)
        realtime.broadcast("room", "kept", 2, durable=True)

    await db(work)
    assert (await heard(client))["event"] == "kept"
    await realtime.abroadcast("room", "kept", b"3", durable=True)
    frame = await heard(client)
    ids = await db(lambda: list(Message.objects.order_by("pk").values_list("id", flat=True)))
    assert frame == binary_broadcast(TOPIC, "kept", b"3", 0, {"id": str(ids[1])})  # type: ignore[arg-type]


async def test_a_row_that_any_program_inserts_is_sent(listen: Any) -> None:
    client = await listen()

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO realtime_message (topic, event, payload)"
                " VALUES ('room', 'moved', '{\"a\": [1, 2.50]}')"
            )

    await db(insert)
    told = await heard(client)
    assert (told["event"], told["payload"]) == ("moved", {"a": [1, 2.5]})
    assert uuid.UUID(told["meta"]["id"]).version == 4
    assert await db(lambda: Message.objects.get().id) == uuid.UUID(told["meta"]["id"])


async def test_a_row_that_another_program_inserts_without_a_topic_ends_no_connection(
    listen: Any,
) -> None:
    client = await listen(token=token(7))

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO realtime_message (topic, event, payload, private)"
                " VALUES ('', 'disconnect', '\"7\"', true), ('room', 'after', '1', false)"
            )

    await db(insert)
    assert (await heard(client))["event"] == "after"
    reply = await client.reply(await client.push("phoenix", "heartbeat", {}))
    assert reply["status"] == "ok"


async def test_a_broadcast_is_public_unless_it_says_otherwise_from_every_program(
    listen: Any,
) -> None:
    await db(allow, "receive_broadcast")
    public, private = await listen(), await listen(config={"private": True})

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO realtime_message (topic, event, payload) VALUES ('room', 'sql', '1')"
            )

    await db(insert)
    await db(lambda: Message.objects.create(topic="room", event="orm", payload=1))
    await db(lambda: realtime.broadcast("room", "python", 1, durable=True))
    await db(lambda: realtime.broadcast("room", "passing", 1))
    told = {(await heard(public))["event"] for _ in range(4)}
    assert told == {"sql", "orm", "python", "passing"}
    assert await private.silent()


async def test_stored_broadcasts_are_replayed_once_and_in_order(listen: Any) -> None:
    await db(allow, "receive_broadcast")

    def store() -> None:
        for number in range(4):
            payload: Any = b"bytes" if number == 3 else {"n": number}
            realtime.broadcast("room", "e", payload, private=True, durable=True)
        realtime.broadcast("room", "public", 1, durable=True)

    await db(store)
    since = int((time.time() - 60) * 1000)
    config = {"private": True, "broadcast": {"replay": {"since": since, "limit": 3}}}
    client = await listen(config=config)
    told = [await heard(client) for _ in range(3)]
    assert [message["payload"]["n"] for message in told[:2]] == [1, 2]
    assert told[0]["meta"]["replayed"] is True
    ids = await db(lambda: list(Message.objects.filter(event="e").values_list("id", flat=True)))
    assert {uuid.UUID(message["meta"]["id"]) for message in told[:2]} <= set(ids)
    assert told[2].startswith(b"\x04") and told[2].endswith(b"bytes")
    await db(lambda: realtime.broadcast("room", "e", {"n": 9}, private=True, durable=True))
    live = await heard(client)
    assert live["payload"] == {"n": 9}
    assert "replayed" not in live["meta"]
    later = await listen(
        config={"private": True, "broadcast": {"replay": {"since": since + 10**9}}}
    )
    assert await later.silent()


async def test_a_message_that_is_replayed_does_not_come_again_live(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(allow, "receive_broadcast")
    await listen()
    from realtime.socket import topic_handler

    real = topic_handler.stored

    def read_then_send(*arguments: Any) -> Any:
        # Committed before the table is read, and told by the log after it.
        realtime.broadcast("room", "e", {"n": 1}, private=True, durable=True)
        found = real(*arguments)
        realtime.broadcast("room", "e", {"n": 2}, private=True, durable=True)
        return found

    monkeypatch.setattr(topic_handler, "stored", read_then_send)
    client = await listen(config={"private": True, "broadcast": {"replay": {"since": 0}}})
    told = [await heard(client) for _ in range(2)]
    assert [message["payload"]["n"] for message in told] == [1, 2]
    assert [message["meta"].get("replayed") for message in told] == [True, None]
    assert await client.silent()


async def test_a_subject_that_lost_its_right_while_it_joined_gets_no_stored_broadcast(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_receive = await db(allow, "receive_broadcast")
    may_send = await db(allow, "send_broadcast")
    await db(allow, "view_presence")
    other = await listen(config={"private": True, "broadcast": {"ack": True}})
    await db(lambda: realtime.broadcast("room", "e", {"n": 1}, private=True, durable=True))
    from realtime.socket import topic_handler

    real, reads, go = topic_handler.stored, [0], threading.Event()

    def read_late(*arguments: Any) -> Any:
        found = real(*arguments)
        reads[0] += 1
        assert go.wait(PATIENCE_SECONDS)
        return found

    monkeypatch.setattr(topic_handler, "stored", read_late)
    client = await Client().connect()
    config = {"private": True, "broadcast": {"replay": {"since": 0}}}
    join = await client.push(TOPIC, "phx_join", {"config": config})
    await auntil(lambda: reads[0] == 1, "the read of stored broadcasts")
    # Comes while the join waits, and is not sent with its reply either.
    await db(lambda: realtime.broadcast("room", "e", {"n": 2}, private=True, durable=True))
    may_receive.enabled = False
    await db(may_receive.save)
    # Changes of rights are followed one after the other: the second shows that the first is done.
    message = {"type": "broadcast", "event": "e", "payload": {}}
    for status in ("error", "ok"):
        may_send.enabled = status == "ok"
        await db(may_send.save)
        answer = None
        while answer != status:
            ref = await other.push(TOPIC, "broadcast", message)
            answer = (await other.reply(ref))["status"]
    go.set()
    assert (await client.reply(join))["status"] == "ok"
    assert await client.silent()
    await client.close()


def persisted(ref: bytes, payload: bytes, encoding: int = 1) -> bytes:
    """A kind 3 frame whose metadata asks for storage."""
    meta = b'{"persist":true}'
    lengths = bytes([1, len(ref), len(TOPIC), 1, len(meta), encoding])
    return b"\x03" + lengths + b"1" + ref + TOPIC.encode() + b"e" + meta + payload


async def test_a_client_may_store_what_it_sends_and_does_not_hear_itself(listen: Any) -> None:
    for action in ("receive_broadcast", "send_broadcast"):
        await db(allow, action)
    config = {"private": True, "broadcast": {"ack": True}}
    sender, other = await listen(config=config), await listen(config=config)
    await sender.raw.send_to(bytes_data=persisted(b"9", b'{"n":1}'))
    answer = await sender.reply("9")
    told = await heard(other)
    assert answer == {"status": "ok", "response": {"id": told["meta"]["id"]}}
    assert told["payload"] == {"n": 1}
    await db(lambda: realtime.broadcast("room", "after", 2, private=True))
    assert (await heard(sender))["event"] == "after"
    assert str(await db(lambda: Message.objects.get().id)) == told["meta"]["id"]


async def test_broadcasts_of_a_channel_are_stored_in_the_order_they_came(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in ("receive_broadcast", "send_broadcast"):
        await db(allow, action)
    config = {"private": True, "broadcast": {"ack": True}}
    sender, other = await listen(config=config), await listen(config=config)
    from realtime.socket import topic_handler

    real, running, together, go = topic_handler.store, [0], [0], threading.Event()

    def store_late(broadcast: Any) -> None:
        running[0] += 1
        together[0] = max(together[0], running[0])
        assert go.wait(PATIENCE_SECONDS)
        real(broadcast)
        running[0] -= 1

    monkeypatch.setattr(topic_handler, "store", store_late)
    for number in range(1, 4):
        await sender.raw.send_to(bytes_data=persisted(b"%d" % number, b'{"n":%d}' % number))
    await sender.reply(await sender.push("phoenix", "heartbeat", {}))
    # Behind them in the queue of the threads.
    await db(lambda: None)
    go.set()
    assert [(await heard(other))["payload"]["n"] for _ in range(3)] == [1, 2, 3]
    assert together == [1]


async def test_a_database_that_fails_tells_a_client_nothing_of_itself(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in ("receive_broadcast", "send_broadcast"):
        await db(allow, action)
    client = await listen(config={"private": True, "broadcast": {"ack": True}})

    def away(cast: Any) -> None:
        raise OperationalError('connection to server at "10.1.2.3", port 5432 failed')

    monkeypatch.setattr("realtime.socket.topic_handler.store", away)
    await client.raw.send_to(bytes_data=persisted(b"9", b'{"n":1}'))
    answer = await client.reply("9")
    assert answer["response"] == {
        "reason": "The broadcast could not be stored: the database does not answer"
    }


async def test_what_the_database_cannot_store_is_refused_and_not_sent(listen: Any) -> None:
    for action in ("receive_broadcast", "send_broadcast"):
        await db(allow, action)
    config = {"private": True, "broadcast": {"ack": True, "self": True}}
    client = await listen(config=config)
    await client.raw.send_to(bytes_data=persisted(b"9", b'{"n":"\\u0000"}'))
    answer = await client.reply("9")
    if connection.vendor == "postgresql":
        assert answer["response"]["reason"].startswith("The broadcast could not be stored: ")
        assert await client.silent()
    else:
        assert answer["status"] == "ok"
