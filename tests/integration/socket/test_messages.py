"""What clients send to each other, in order, and clients that do not read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from realtime.protocol.errors import CloseCode
from tests.support.socket_client import Client, application, db
from tests.support.tokens import token
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


async def test_a_private_channel_is_closed_to_all_without_a_policy() -> None:
    client = await Client(token=token(1)).connect()
    reply = await client.join(private=True)
    assert reply["response"]["reason"] == (
        "Unauthorized: You do not have permissions to read from this Channel topic: room"
    )
    await client.close()


async def test_a_broadcast_reaches_the_others_in_the_room_and_its_sender_if_he_wishes() -> None:
    sender, other, elsewhere = [await Client().connect() for _ in range(3)]
    await sender.join(broadcast={"ack": True})
    await other.join()
    await elsewhere.join("realtime:elsewhere")
    message = {"type": "broadcast", "event": "ping", "payload": {"n": 1}}
    ref = await sender.push("realtime:room", "broadcast", message)
    assert (await sender.reply(ref))["status"] == "ok"
    assert await other.receive() == [None, None, "realtime:room", "broadcast", message]
    assert await sender.silent()
    assert await elsewhere.silent()
    await sender.join("realtime:self", broadcast={"self": True})
    await sender.push("realtime:self", "broadcast", message)
    assert (await sender.until(lambda f: f[3] == "broadcast"))[4] == message
    for client in (sender, other, elsewhere):
        await client.close()


async def test_a_binary_broadcast_reaches_v2_as_bytes_and_v1_not_at_all() -> None:
    sender, v2 = await Client().connect(), await Client().connect()
    v1 = await Client(vsn="1.0.0").connect()
    await sender.join()
    await v2.join()
    joining = {"topic": "realtime:room", "event": "phx_join", "payload": {}, "ref": "1"}
    await v1.raw.send_to(text_data=json.dumps(joining))
    assert (await v1.receive())["payload"]["status"] == "ok"
    head = b"\x03\x01\x01\x0d\x02\x00"
    await sender.raw.send_to(bytes_data=head + b"\x0011realtime:roomev\x00\xff")
    assert await v2.receive() == b"\x04\x0d\x02\x00\x00realtime:roomev\x00\xff"
    await sender.raw.send_to(bytes_data=head + b'\x0112realtime:roomev{"a":1}')
    assert (await v2.receive())[4] == {"type": "broadcast", "event": "ev", "payload": {"a": 1}}
    assert (await v1.receive())["payload"]["payload"] == {"a": 1}
    for client in (sender, v2, v1):
        await client.close()


async def test_a_slow_reader_is_given_up_and_others_notice_nothing(
    granted: Any, settings: Any
) -> None:
    settings.REALTIME = {"LIMITS": {"outbox_bytes": 20_000}}
    await db(granted, "view_note")
    scope = {
        "type": "websocket",
        "path": "/realtime",
        "query_string": b"vsn=2.0.0",
        "headers": [],
        "subprotocols": [],
    }
    inbound: asyncio.Queue[Any] = asyncio.Queue()
    accepted, release = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            await release.wait()  # the client does not read
        sent.append(message)
        accepted.set()

    stuck = asyncio.create_task(application(scope, inbound.get, send))
    await inbound.put({"type": "websocket.connect"})
    await accepted.wait()
    binding = {"event": "*", "schema": "public", "table": "zoo_note"}
    join = ["1", "1", "realtime:x", "phx_join", {"config": {"postgres_changes": [binding]}}]
    await inbound.put({"type": "websocket.receive", "text": json.dumps(join)})
    good = await Client().connect()
    await good.listen()
    notes = [Note(title="x" * 150, body="y" * 900) for _ in range(30)]
    await db(Note.objects.bulk_create, notes)
    for _ in notes:
        await good.change()
    await stuck
    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == CloseCode.SLOW_CONSUMER
    await good.close()


async def test_messages_right_behind_a_join_take_effect_after_it() -> None:
    listener, client = await Client().connect(), await Client().connect()
    await listener.join()
    config = {"broadcast": {"ack": True}, "presence": {"key": "me", "enabled": True}}
    join = await client.push("realtime:room", "phx_join", {"config": config})
    said = [
        await client.push("realtime:room", "broadcast", {"event": "e", "payload": number}, join)
        for number in range(20)
    ]
    track = {"event": "track", "payload": {"n": 1}}
    said.append(await client.push("realtime:room", "presence", track, join))
    assert (await client.reply(join))["status"] == "ok"
    for ref in said:
        assert (await client.reply(ref))["status"] == "ok"
    heard = [(await listener.until(lambda f: f[3] == "broadcast"))[4]["payload"] for _ in range(20)]
    assert heard == list(range(20))
    await client.close()
    await listener.close()
