"""Broadcasts from Python and over HTTP, stored and not, and what a rollback leaves of them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection, transaction
from django.test import AsyncClient, override_settings

import realtime
from auth_rls.models import Policy
from realtime.models import Message
from realtime.process import broadcast_sender
from realtime.process.hub import hub
from realtime.protocol.serializer import binary_broadcast
from realtime.topics.broadcast import Broadcast
from tests.support.socket_client import Client, db
from tests.support.tokens import token
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

TOPIC = "realtime:room"


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    clients: list[Client] = []

    async def make(topic: str = TOPIC, config: Any = None, **options: Any) -> Client:
        client = await Client(**options).connect()
        clients.append(client)
        reply = await client.join(topic, **(config or {}))
        assert reply["status"] == "ok", reply
        return client

    yield make
    for client in clients:
        await client.close()


def allow(action: str, using: Any = True) -> Policy:
    permission = Permission.objects.get(codename=action, content_type__app_label="realtime")
    name = f"{action} {Policy.objects.count()}"
    return Policy.objects.create(name=name, permission=permission, audience="anyone", using=using)


async def heard(client: Client) -> Any:
    frame = await client.until(lambda f: isinstance(f, bytes) or f[3] == "broadcast")
    return frame if isinstance(frame, bytes) else frame[4]


def sent(event: str, payload: Any) -> dict[str, Any]:
    return {"type": "broadcast", "event": event, "payload": payload}


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
    monkeypatch.setattr(broadcast_sender, "running_hub", lambda: None)
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
                "INSERT INTO realtime_message (topic, event, payload, private)"
                " VALUES ('room', 'moved', '{\"a\": [1, 2.50]}', %s)",
                [False],
            )

    await db(insert)
    told = await heard(client)
    assert (told["event"], told["payload"]) == ("moved", {"a": [1, 2.5]})
    assert uuid.UUID(told["meta"]["id"]).version == 4
    assert await db(lambda: Message.objects.get().id) == uuid.UUID(told["meta"]["id"])


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


# --- over HTTP ----------------------------------------------------------------------------------


BATCH = "/realtime/v1/api/broadcast"


async def post(path: str, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = headers.pop("content_type", "application/json")
    return await AsyncClient().post(path, content, content_type=kind, headers=headers)


class RawPathClient(AsyncClient):
    """As through a server that also gives the path as it was sent."""

    def __init__(self, raw_path: bytes | None) -> None:
        super().__init__()
        self._raw_path = raw_path

    async def request(self, **request: Any) -> Any:
        # Django's own client decodes it as for WSGI.
        path = request.pop("path").encode("latin-1").decode()
        return await super().request(**request, path=path, raw_path=self._raw_path)


async def post_as_sent(path: str, raw_path: bytes | None) -> Any:
    client = RawPathClient(raw_path)
    return await client.post(path, b"{}", content_type="application/json")


def one(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"topic": "room", "event": "e", "payload": {"a": 1}, **fields}]}


@pytest.mark.parametrize("base", ["/realtime", "/realtime/v1"])
async def test_a_batch_is_accepted_and_arrives(listen: Any, base: str) -> None:
    client = await listen()
    answer = await post(f"{base}/api/broadcast?vsn=2.0.0", one())
    assert (answer.status_code, answer.content) == (202, b"")
    assert await heard(client) == sent("e", {"a": 1})
    id_ = str(uuid.uuid4())
    assert (await post(f"{base}/api/broadcast", one(id=id_))).status_code == 202
    assert await heard(client) == {**sent("e", {"a": 1}), "meta": {"id": id_}}


@pytest.mark.parametrize(
    ("names", "topic", "event"),
    [
        ("room/events/saved", "room", "saved"),
        ("room/events/a%2Fevents%2Fb", "room", "a/events/b"),
        ("room%2Fevents%2Fa/events/b", "room/events/a", "b"),
        ("room%2fevents%2fa/events/b%2fevents%2fc", "room/events/a", "b/events/c"),
        ("r%C3%B6om/events/s%C3%A4%2Fevents%2Fved", "röom", "sä/events/ved"),
        # Plain ones all: the last parts them.
        ("room/events/a/events/b", "room/events/a", "b"),
        ("room/events/a/events/", "room", "a/events/"),
    ],
)
async def test_an_encoded_slash_belongs_to_a_name(
    listen: Any, names: str, topic: str, event: str
) -> None:
    client = await listen(f"realtime:{topic}")
    path = f"{BATCH}/{names}"
    assert (await post_as_sent(path, path.encode())).status_code == 202
    assert await heard(client) == sent(event, {})


async def test_an_encoded_slash_makes_no_topic() -> None:
    path = f"{BATCH}//events/a%2Fevents%2Fb"
    answer = await post_as_sent(path, path.encode())
    assert answer.status_code == 422
    assert answer.json() == {"errors": {"topic": ["can't be blank"]}}


@pytest.mark.parametrize(
    "raw_path",
    [None, b"", b"/events/", b"/elsewhere/events/else", b"/x/events/a/events/b", b"/events/\xff"],
)
async def test_where_no_server_tells_what_was_sent_the_last_events_part_the_names(
    listen: Any, raw_path: bytes | None
) -> None:
    client = await listen("realtime:room/events/a")
    path = f"{BATCH}/room%2Fevents%2Fa%2Fevents%2Fb"
    assert (await post_as_sent(path, raw_path)).status_code == 202
    assert await heard(client) == sent("b", {})


async def test_a_single_event_carries_json_or_bytes(listen: Any) -> None:
    client = await listen("realtime:a/b:c")
    path = "/realtime/v1/api/broadcast/a%2Fb:c/events/ev"
    assert (await post(path, {"x": 1})).status_code == 202
    assert await heard(client) == sent("ev", {"x": 1})
    answer = await post(path, b"\0\1", content_type="application/octet-stream")
    assert answer.status_code == 202
    assert await heard(client) == b"\x04\x0e\x02\x00\x00realtime:a/b:cev\0\1"
    answer = await post(path, b"x", content_type="text/plain")
    assert answer.status_code == 415
    assert answer.json() == {
        "error": "Unsupported Media Type. Use application/json or application/octet-stream"
    }


async def test_private_topics_need_permission_to_send(listen: Any) -> None:
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$claims.room"})
    client = await listen(config={"private": True})
    good, bad = token("a", room="room"), token("a", room="other")
    single = f"{BATCH}/room/events/e?private=true"
    answer = await post(single, {"n": 0}, authorization=f"Bearer {bad}")
    assert (answer.status_code, answer.json()) == (403, {"message": "Unauthorized"})
    assert (await post(BATCH, one(private=True), apikey=bad)).status_code == 202
    answer = await post(single, {"n": 1}, authorization=f"Bearer {good}", apikey=bad)
    assert answer.status_code == 202
    assert (await heard(client))["payload"] == {"n": 1}
    answer = await post(f"{single}&persist=true", {"n": 2}, apikey=good)
    assert answer.status_code == 202
    told = await heard(client)
    assert told["meta"] == {"id": str(await db(lambda: Message.objects.get().id))}


@pytest.mark.parametrize("headers", [{"authorization": "Bearer x.y.z"}, {"apikey": "sb_secret_no"}])
async def test_a_bad_token_is_unauthorized(headers: dict[str, str]) -> None:
    answer = await post(BATCH, one(), **headers)
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})


async def test_nobody_may_send_where_nobody_may_connect() -> None:
    with override_settings(REALTIME={"ALLOW_ANONYMOUS": False}):
        assert (await post(BATCH, one())).status_code == 401
    with override_settings(REALTIME={"PRIVATE_ONLY": True}):
        answer = await post(f"{BATCH}/room/events/e", {})
        assert (answer.status_code, answer.json()) == (403, {"message": "Unauthorized"})


@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [
        ({}, 422, {"messages": ["can't be blank"]}),
        ({"messages": 7}, 422, {"messages": ["is not a list"]}),
        ({"messages": [7]}, 422, {"messages": [{"message": ["is not an object"]}]}),
        (one(event=""), 422, {"messages": [{"event": ["can't be blank"]}]}),
        (one(topic=7), 422, {"messages": [{"topic": ["is not a string"]}]}),
        (one(payload=None), 422, {"messages": [{"payload": ["can't be blank"]}]}),
        (one(private="yes"), 422, {"messages": [{"private": ["is not true or false"]}]}),
        (one(id="7"), 422, {"messages": [{"id": ["is not a UUID"]}]}),
        (
            one(payload="x" * 70_000),
            422,
            {"messages": [{"payload": ["Payload size exceeds tenant limit"]}]},
        ),
        ([], 422, {"body": ["Expected `object`, got `array`"]}),
    ],
)
async def test_what_is_wrong_with_a_batch_is_said(body: Any, status: int, errors: Any) -> None:
    answer = await post(BATCH, body)
    assert (answer.status_code, answer.json()) == (status, {"errors": errors})


async def test_a_body_that_is_no_json_or_too_large_is_refused() -> None:
    answer = await post(BATCH, b"{")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("The body is not JSON: ")
    for size in (1_100_000, 3_000_000):
        assert (await post(BATCH, b"x" * size)).status_code == 413


async def test_any_origin_may_ask() -> None:
    answer = await AsyncClient().options(BATCH)
    assert answer.status_code == 204
    assert answer["Access-Control-Allow-Origin"] == "*"
    allowed = answer["Access-Control-Allow-Headers"].split(", ")
    assert {"apikey", "authorization", "content-type", "x-client-info"} <= set(allowed)
    answer = await AsyncClient().get(BATCH)
    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (405, "*")


# --- stored by a client -------------------------------------------------------------------------


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
    taken = [one.broadcast(Broadcast("noisy", False, "e", b"1", 1)) for _ in range(3_000)]
    assert one.broadcast(Broadcast("quiet", False, "e", b"2", 1))
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
    await auntil(lambda: hub().counters.casts == 1)
