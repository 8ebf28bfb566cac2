"""Who sent a broadcast, and who is present: said by the server on private topics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient

import realtime
from auth_rls.models import Policy
from tests.support.socket_client import Client, db
from tests.support.tokens import token

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

TOPIC = "realtime:room"
FORGED = {"user_id": "1", "id": "1", "replayed": True, "mine": 1}


@pytest.fixture(autouse=True)
def allowed(wal: Any) -> None:
    for action in ("receive_broadcast", "send_broadcast", "view_presence", "track_presence"):
        permission = Permission.objects.get(codename=action, content_type__app_label="realtime")
        Policy.objects.create(name=action, permission=permission, audience="anyone", using=True)


@pytest.fixture
async def join() -> AsyncIterator[Callable[..., Any]]:
    clients: list[Client] = []

    async def make(sub: str = "", private: bool = True, **config: Any) -> Client:
        client = await Client(**({"apikey": token(sub)} if sub else {})).connect()
        clients.append(client)
        reply = await client.join(TOPIC, private=private, **config)
        assert reply["status"] == "ok", reply
        return client

    yield make
    for client in clients:
        await client.close()


async def heard(client: Client) -> Any:
    frame = await client.until(lambda f: isinstance(f, bytes) or f[3] == "broadcast")
    return frame if isinstance(frame, bytes) else frame[4]


async def send(client: Client, payload: Any = 1, **more: Any) -> None:
    message = {"type": "broadcast", "event": "e", "payload": payload, **more}
    await client.push(TOPIC, "broadcast", message, join_ref="1")


async def test_a_broadcast_to_a_private_topic_names_its_user(join: Any) -> None:
    sender, listener = await join("7"), await join("8")
    await send(sender, {"user_id": "1"})
    assert await heard(listener) == {
        "type": "broadcast",
        "event": "e",
        "payload": {"user_id": "1"},
        "meta": {"user_id": "7"},
    }


@pytest.mark.parametrize("sub", ["7", ""])
@pytest.mark.parametrize("meta", [FORGED, [1], "x", None])
async def test_nobody_can_forge_it(join: Any, sub: str, meta: Any) -> None:
    sender, listener = await join(sub), await join("8")
    await send(sender, meta=meta, user_id="1")
    told = await heard(listener)
    wanted = {"user_id": sub} if sub else {}
    kept = {"mine": 1} if isinstance(meta, dict) else {}
    assert told.get("meta", {}) == {**kept, **wanted}


async def test_no_escape_and_no_repeated_key_forges_it(join: Any) -> None:
    sender, listener = await join("7", private=False), await join("8", private=False)
    for text in (
        '{"type":"broadcast","event":"e","payload":1,"meta":{"user_id":"1"}}',
        '{"type":"broadcast","event":"e","payload":1,"\\u006deta":{"\\u0075ser_id":"1"}}',
        '{"meta":{},"type":"broadcast","event":"e","payload":1,"meta":{"user_id":"1"}}',
    ):
        await sender.raw.send_to(text_data=f'["1","9","{TOPIC}","broadcast",{text}]')
        assert "meta" not in await heard(listener)


async def test_bytes_carry_it_too(join: Any) -> None:
    sender, listener = await join("7"), await join("8")
    lengths = bytes([1, 1, len(TOPIC), 1, 0, 0])
    await sender.raw.send_to(bytes_data=b"\x03" + lengths + b"19" + TOPIC.encode() + b"e" + b"\0x")
    frame = await heard(listener)
    assert b'{"user_id":"7"}' in frame and frame.endswith(b"\0x")
    # One so long that a binary frame cannot carry it leaves the broadcast as it is.
    other = await join("x" * 300)
    await other.raw.send_to(bytes_data=b"\x03" + lengths + b"19" + TOPIC.encode() + b"e" + b"\0y")
    frame = await heard(listener)
    assert b"user_id" not in frame and frame.endswith(b"\0y")


async def test_stored_and_replayed_ones_carry_it(join: Any) -> None:
    sender, listener = await join("7"), await join("8")
    meta = b'{"persist":true}'
    lengths = bytes([1, 1, len(TOPIC), 1, len(meta), 1])
    frame = b"\x03" + lengths + b"19" + TOPIC.encode() + b"e" + meta + b"5"
    await sender.raw.send_to(bytes_data=frame)
    told = await heard(listener)
    assert told["meta"]["user_id"] == "7"
    late = await join("9", broadcast={"replay": {"since": 0}})
    assert (await heard(late))["meta"] == {**told["meta"], "replayed": True}


async def test_http_says_whose_token_it_was(join: Any) -> None:
    listener = await join("8")
    headers = {"authorization": f"Bearer {token('7')}"}
    single = "/realtime/v1/api/broadcast/room/events/e?private=true"
    client = AsyncClient()
    await client.post(single, b"1", content_type="application/json", headers=headers)
    assert (await heard(listener))["meta"] == {"user_id": "7"}
    messages = [{"topic": "room", "event": "e", "payload": 1, "private": True, "user_id": "1"}]
    body = json.dumps({"messages": messages}).encode()
    path = "/realtime/v1/api/broadcast"
    await client.post(path, body, content_type="application/json", headers=headers)
    assert (await heard(listener))["meta"] == {"user_id": "7"}
    await db(realtime.broadcast, "room", "e", 1, private=True)
    assert "meta" not in await heard(listener)


async def test_a_public_topic_names_nobody(join: Any) -> None:
    sender, listener = await join("7", private=False), await join("8", private=False)
    await send(sender)
    assert await heard(listener) == {"type": "broadcast", "event": "e", "payload": 1}


# --- presence -----------------------------------------------------------------------------------


async def track(client: Client, meta: Any) -> None:
    payload = {"event": "track", "payload": meta}
    assert (await client.reply(await client.push(TOPIC, "presence", payload)))["status"] == "ok"


async def state(join: Any, private: bool = True) -> Any:
    late = await join("9", private=private, presence={"enabled": True})
    found = (await late.until(lambda f: isinstance(f, list) and f[3] == "presence_state"))[4]
    return [
        {name: value for name, value in meta.items() if name != "phx_ref"}
        for entry in found.values()
        for meta in entry["metas"]
    ]


async def test_a_presence_on_a_private_topic_names_its_user_and_cannot_forge_it(
    join: Any,
) -> None:
    watcher = await join("8", presence={"enabled": True})
    await watcher.until(lambda f: isinstance(f, list) and f[3] == "presence_state")
    member = await join("7", presence={"enabled": False, "key": "8"})
    await track(member, {"phx_user_id": "8", "name": "x"})
    told = await watcher.until(lambda f: isinstance(f, list) and f[3] == "presence_diff")
    (meta,) = told[4]["joins"]["8"]["metas"]
    assert meta["phx_user_id"] == "7"
    assert await state(join) == [{"phx_user_id": "7", "name": "x"}]


async def test_a_presence_without_a_user_or_on_a_public_topic_names_nobody(join: Any) -> None:
    nobody = await join("")
    await track(nobody, {"phx_user_id": "8"})
    assert await state(join) == [{}]
    public = await join("7", private=False)
    await track(public, {"phx_user_id": "8"})
    assert await state(join, private=False) == [{}]


async def test_a_channel_that_changes_hands_is_present_as_its_new_user(join: Any) -> None:
    ann, bob = (
        await db(User.objects.create, username="ann"),
        await db(User.objects.create, username="bob"),
    )
    member = await join(str(ann.pk))
    await track(member, {"n": 1})
    watcher = await join("9", presence={"enabled": True})
    await watcher.until(lambda f: isinstance(f, list) and f[3] == "presence_state")
    await member.push(TOPIC, "access_token", {"access_token": token(str(bob.pk))}, join_ref="1")
    told = await watcher.until(lambda f: isinstance(f, list) and f[3] == "presence_diff")
    metas = [meta for entry in told[4]["joins"].values() for meta in entry["metas"]]
    assert [(meta["n"], meta["phx_user_id"]) for meta in metas] == [(1, str(bob.pk))]
