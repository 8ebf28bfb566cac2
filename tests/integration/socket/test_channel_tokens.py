"""Tokens of channels: at the join, in band, and at their end."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.test import override_settings

from realtime.protocol.errors import CloseCode
from tests.support.live_client import everything_handed_out
from tests.support.socket_client import Client, closed, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.support.topics import allow
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


@pytest.mark.parametrize(
    "bad",
    ["garbage", "a.b.c", "", "x" * 100_000, "\x00", "eyJhbGciOiJub25lIn0.e30."],
)
async def test_a_bad_token_refuses_the_join_and_leaves_the_socket(bad: str) -> None:
    client = await Client().connect()
    reply = await client.join(access_token=bad)
    if bad.strip():
        assert reply["status"] == "error"
        assert bad not in json.dumps(reply)
    ref = await client.push("phoenix", "heartbeat", {})
    assert (await client.reply(ref))["status"] == "ok"
    await client.close()


async def test_a_fresh_token_changes_the_subject_in_band(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    client = await Client(token=token(ada.pk)).connect()
    await client.listen()
    await client.push("realtime:room", "access_token", {"access_token": token(bob.pk)})
    assert (await client.receive())[4]["message"] == "Subscribed to PostgreSQL"
    await db(Note.objects.create, owner=ada, title="for ada")
    await db(Note.objects.create, owner=bob, title="for bob")
    assert (await client.change())["record"]["title"] == "for bob"
    assert await client.silent()
    await client.close()


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "joining"])
async def test_a_broadcast_right_behind_a_token_is_judged_by_that_token(joined: bool) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$user.username"})
    client = await Client(token=token(ada.pk)).connect()
    for name, status in (("bob", "ok"), ("ada", "error")):
        topic = f"realtime:{name}"
        config = {"private": True, "broadcast": {"ack": True}}
        joining = {"config": config, "access_token": token(ada.pk, n=1)}
        ref = await client.push(topic, "phx_join", joining)
        if joined:
            assert (await client.reply(ref))["status"] == "ok"
        await client.push(topic, "access_token", {"access_token": token(bob.pk)})
        message = {"type": "broadcast", "event": "e", "payload": {}}
        reply = await client.reply(await client.push(topic, "broadcast", message))
        assert reply["status"] == status, name
    await client.close()


async def test_a_broadcast_ahead_of_a_token_is_judged_by_the_token_before() -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast", {"topic": "$user.username"})
    client = await Client(token=token(ada.pk)).connect()
    config = {"private": True, "broadcast": {"ack": True}}
    await client.push("realtime:ada", "phx_join", {"config": config})
    message = {"type": "broadcast", "event": "e", "payload": {}}
    first = await client.push("realtime:ada", "broadcast", message)
    await client.push("realtime:ada", "access_token", {"access_token": token(bob.pk)})
    second = await client.push("realtime:ada", "broadcast", message)
    assert (await client.reply(first))["status"] == "ok"
    assert (await client.reply(second))["status"] == "error"
    await client.close()


async def test_of_many_tokens_at_once_the_last_counts(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    await db(allow, "receive_broadcast")
    await db(allow, "send_broadcast")
    client = await Client(token=token(ada.pk)).connect()
    binding = {"event": "*", "schema": "public", "table": "zoo_note"}
    config = {"postgres_changes": [binding], "private": True, "broadcast": {"ack": True}}
    await client.push("realtime:room", "phx_join", {"config": config})
    for sent in (token(ada.pk, n=1), "garbage", token(ada.pk, n=2), token(bob.pk)):
        await client.push("realtime:room", "access_token", {"access_token": sent})
    message = {"type": "broadcast", "event": "e", "payload": {}}
    # The answer comes when the last of them has taken effect.
    reply = await client.reply(await client.push("realtime:room", "broadcast", message))
    assert reply["status"] == "ok"
    await db(Note.objects.create, owner=ada, title="for ada")
    await db(Note.objects.create, owner=bob, title="for bob")
    assert (await client.change())["record"]["title"] == "for bob"
    await client.close()


async def test_a_bad_token_in_band_ends_the_channel_with_an_error() -> None:
    client = await Client().connect()
    await client.listen()
    await client.push("realtime:room", "access_token", {"access_token": "garbage"})
    system, error = await client.receive(), await client.receive()
    assert system[4]["status"] == "error"
    assert error[3] == "phx_error"
    assert (await client.join())["status"] == "ok"
    await client.close()


async def test_an_expired_token_ends_its_channel_and_a_fresh_one_rejoins() -> None:
    client = await Client(token=token(1, ttl=60)).connect()
    # A slow machine may take longer for the join than the first of these tokens are good for.
    for ttl in (1, 2, 4, 8, 16):
        if (await client.join(access_token=token(1, ttl=ttl)))["status"] == "ok":
            break
    client.unread.clear()
    error = await client.until(lambda f: f[3] == "phx_error")
    assert error[2] == "realtime:room"
    assert "Token has expired" in client.unread[0][4]["message"]
    assert (await client.join(access_token=token(1)))["status"] == "ok"
    await client.close()


async def test_a_join_is_answered_with_a_mark_of_its_subject() -> None:
    ada, bob = await user("ada"), await user("bob")
    client = await Client(token=token(ada.pk)).connect()
    now = int(time.time())

    async def mark(shown: str | None = None) -> str:
        reply = await client.join(access_token=shown)
        return str(reply["response"]["subject"])

    of_ada = await mark()
    assert re.fullmatch("[0-9a-f]{16}", of_ada)
    renewed = token(ada.pk, ttl=7200, iat=now - 10, nbf=now - 10, jti="another")
    assert await mark(renewed) == of_ada
    others = [
        token(bob.pk),
        token(ada.pk, role="anon"),
        token(ada.pk, role="service_role"),
        token(ada.pk, team={"id": 7}),
        token(ada.pk, team={"id": 8}),
        token(ada.pk, team={"id": "8"}),
        token(None, role="anon"),
    ]
    assert len({of_ada, *[await mark(one) for one in others]}) == 1 + len(others)
    assert await mark(token(ada.pk, team={"id": 7, "name": "x"})) == await mark(
        token(ada.pk, team={"name": "x", "id": 7})
    )
    await client.close()


async def test_a_token_in_band_is_confirmed_with_the_mark_of_its_subject(granted: Any) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    client = await Client(token=token(ada.pk)).connect()
    of_ada = (await client.listen())["subject"]
    for shown, is_ada in (
        (token(ada.pk, ttl=7200), True),
        (token(bob.pk), False),
        (token(ada.pk, ttl=9000), True),
    ):
        await client.push("realtime:room", "access_token", {"access_token": shown})
        message = (await client.receive())[4]
        assert message["message"] == "Subscribed to PostgreSQL"
        assert (message["subject"] == of_ada) is is_ada
    await client.close()


@pytest.mark.parametrize("changes", [False, True], ids=["topic", "changes"])
async def test_a_channel_that_took_a_key_does_not_end_with_the_user_before(changes: bool) -> None:
    ada = await user("ada")
    with override_settings(REALTIME={"API_KEYS": {"the key": "anon"}}):
        client = await Client().connect()
        if changes:
            await client.listen(access_token=token(ada.pk))
        else:
            await client.join(access_token=token(ada.pk))
        await client.push("realtime:room", "access_token", {"access_token": "the key"})
        # Answered once the key counts.
        message = {"type": "presence", "event": "untrack"}
        await client.reply(await client.push("realtime:room", "presence", message))
        other = await Client(token=token(ada.pk)).connect()
        ada.is_active = False
        await db(ada.save)
        await everything_handed_out()
        assert await closed(other) == CloseCode.TOKEN_REFUSED
        ref = await client.push("phoenix", "heartbeat", {})
        assert (await client.reply(ref))["status"] == "ok"
        await client.close()
