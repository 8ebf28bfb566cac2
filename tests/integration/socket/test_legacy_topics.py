"""Clients from before there were bindings: a topic names a table, changes come bare."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from auth_rls.models import Policy
from tests.support.socket_client import Client, db
from tests.support.socket_users import user
from tests.support.tokens import token
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")
NOTES = "realtime:public:zoo_note"


async def join(client: Client, topic: str = NOTES, **payload: Any) -> Any:
    """Join as old clients do: no config, and the ref of the join in no other frame."""
    return await client.reply(await client.push(topic, "phx_join", payload))


async def listen(client: Client, topic: str = NOTES, **payload: Any) -> None:
    reply = await join(client, topic, **payload)
    assert reply["status"] == "ok", reply
    told = await client.until(lambda f: f[3] == "system")
    assert told[4]["message"] == "Subscribed to PostgreSQL"


async def bare(client: Client, topic: str = NOTES) -> tuple[str, Any]:
    """The next change: its event's name and its data."""
    frame = await client.until(lambda f: isinstance(f, list) and f[3].isupper())
    assert frame[:3] == [None, None, topic]
    return frame[3], frame[4]


async def test_a_change_is_an_event_of_its_own_with_the_data_alone(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    client = await connect()
    await listen(client)
    note = await db(Note.objects.create, title="one")
    await db(Note.objects.filter(pk=note.pk).update, title="two")
    await db(Note.objects.filter(pk=note.pk).delete)
    heard = [await bare(client) for _ in range(3)]
    assert [event for event, _ in heard] == ["INSERT", "UPDATE", "DELETE"]
    assert [data["type"] for _, data in heard] == ["INSERT", "UPDATE", "DELETE"]
    (_, insert), (_, update), (_, delete) = heard
    for data in (insert, update, delete):
        assert (data["schema"], data["table"], data["errors"]) == ("public", "zoo_note", None)
        assert {"name": "title", "type": "varchar"}.items() <= data["columns"][3].items()
    assert insert["record"]["title"] == "one" and "old_record" not in insert
    assert update["record"]["title"] == "two" and update["old_record"]["title"] == "one"
    assert delete["old_record"]["id"] == note.pk and "record" not in delete


async def test_old_and_new_clients_get_the_same_data_each_in_its_own_frame(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    old, new = await connect(), await connect()
    await listen(old)
    # Under the very same topic.
    await new.listen(topic=NOTES)
    await db(Note.objects.create, title="for both")
    assert (await bare(old))[1] == await new.change()
    assert await old.silent() and await new.silent()


async def test_the_first_serializer_frames_them_too(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    client = await connect(vsn="1.0.0")
    joining = {"topic": NOTES, "event": "phx_join", "payload": {}, "ref": "1"}
    await client.raw.send_to(text_data=json.dumps(joining))
    assert (await client.receive())["payload"]["status"] == "ok"
    assert (await client.receive())["event"] == "system"
    await db(Note.objects.create, title="bare")
    frame = await client.receive()
    assert (frame["topic"], frame["event"], frame["ref"]) == (NOTES, "INSERT", None)
    assert frame["payload"]["record"]["title"] == "bare"
    leaving = {"topic": NOTES, "event": "phx_leave", "payload": {}, "ref": "2"}
    await client.raw.send_to(text_data=json.dumps(leaving))
    assert (await client.receive())["payload"] == {"status": "ok", "response": {}}
    assert (await client.receive())["event"] == "phx_close"


@pytest.mark.parametrize("topic", ["realtime:*", "realtime:public"])
async def test_a_schema_brings_every_table_that_may_be_seen(
    granted: Callable[..., Any], connect: Callable[..., Any], topic: str
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    await db(granted, "view_team")
    client = await connect()
    await listen(client, topic)
    await db(Note.objects.create, title="hidden")
    await db(Team.objects.create, name="ours")
    await db(Note.objects.create, title="shown", is_public=True)
    assert (await bare(client, topic))[1]["record"]["name"] == "ours"
    assert (await bare(client, topic))[1]["record"]["title"] == "shown"


async def test_a_filter_stands_in_the_topic(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    client = await connect()
    topic = f"{NOTES}:title=eq.10:30"
    await listen(client, topic)
    await db(Note.objects.create, title="10:29")
    await db(Note.objects.create, title="10:30")
    assert (await bare(client, topic))[1]["record"]["title"] == "10:30"
    assert await client.silent()


async def test_policies_decide_by_the_token_of_the_join_and_by_those_that_follow(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    ada, bob = await user("ada"), await user("bob")
    await db(granted, "view_note", using={"owner": "$user.id"})
    client = await connect()
    await listen(client, user_token=token(ada.pk))
    await db(Note.objects.create, owner=bob, title="bob's")
    await db(Note.objects.create, owner=ada, title="ada's")
    assert (await bare(client))[1]["record"]["title"] == "ada's"
    # Each heartbeat sends the token again, or null where there is none.
    await client.push(NOTES, "access_token", {"access_token": None})
    await client.push(NOTES, "access_token", {"access_token": token(bob.pk)})
    await client.until(lambda f: f[3] == "system")
    await db(Note.objects.create, owner=ada, title="ada's still")
    await db(Note.objects.create, owner=bob, title="bob's now")
    assert (await bare(client))[1]["record"]["title"] == "bob's now"


async def test_a_revocation_reaches_old_clients(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    policy = await db(granted, "view_note")
    await db(granted, "view_team")
    client = await connect()
    await listen(client, "realtime:public")
    await db(Policy.objects.filter(pk=policy.pk).update, enabled=False)
    await client.until(lambda f: f[3] == "system")
    await db(Note.objects.create, title="too late")
    await db(Team.objects.create, name="ours")
    assert (await bare(client, "realtime:public"))[1]["table"] == "zoo_team"


async def test_a_token_that_is_not_one_refuses_the_join(connect: Callable[..., Any]) -> None:
    reply = await join(await connect(), user_token="forged")
    assert reply["status"] == "error"
    assert "not a valid JWT" in reply["response"]["reason"]


@pytest.mark.parametrize("topic", [NOTES, "realtime:*", "realtime:public"])
async def test_a_project_of_private_topics_alone_refuses_them(
    connect: Callable[..., Any], topic: str
) -> None:
    with override_settings(REALTIME={"PRIVATE_ONLY": True}):
        reply = await join(await connect(), topic)
    assert reply["status"] == "error"
    assert reply["response"]["reason"].startswith("PrivateOnly: ")


@pytest.mark.parametrize(
    "topic, words, hint",
    [
        ("realtime:public:zoo_notes", "Please check Realtime is enabled", "'zoo_note'"),
        ("realtime:public:auth_user", "Please check Realtime is enabled", "No table of this name"),
        ("realtime:public:", "No subscription params provided", ""),
        (f"{NOTES}:nothing=eq.1", "invalid column for filter nothing", "published"),
        (f"{NOTES}:nothing", "Error parsing `filter` params", ""),
    ],
)
async def test_a_topic_that_can_bring_nothing_is_told_so_in_the_official_words(
    granted: Callable[..., Any], connect: Callable[..., Any], topic: str, words: str, hint: str
) -> None:
    await db(granted, "view_note")
    client = await connect()
    assert (await join(client, topic))["status"] == "ok"
    told = (await client.until(lambda f: f[3] == "system"))[4]
    assert told["status"] == "error"
    assert words in told["message"]
    assert hint in told.get("hint", "")


@pytest.mark.parametrize(
    "topic", ["realtime:room", "realtime:room:7", "realtime:Public", "realtime::"]
)
async def test_a_topic_that_names_no_schema_is_an_ordinary_one(
    connect: Callable[..., Any], topic: str
) -> None:
    one, two = await connect(), await connect()
    for client in (one, two):
        assert (await join(client, topic))["response"]["postgres_changes"] == []
    message = {"type": "broadcast", "event": "e", "payload": {"n": 1}}
    await one.push(topic, "broadcast", message)
    assert (await two.receive())[3:] == ["broadcast", message]
    assert await one.silent()


async def test_such_a_topic_with_a_config_is_an_ordinary_one(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    one, two = await connect(), await connect()
    for client in (one, two):
        reply = await client.join(NOTES, broadcast={"ack": True})
        assert reply["response"]["postgres_changes"] == []
    await db(Note.objects.create, title="nobody asked")
    message = {"type": "broadcast", "event": "e", "payload": {"n": 1}}
    await one.reply(await one.push(NOTES, "broadcast", message))
    assert (await two.receive())[3:] == ["broadcast", message]


async def test_changes_of_a_burst_come_once_and_in_order(
    granted: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    await db(granted, "view_note")
    client = await connect()
    await listen(client)
    await db(Note.objects.bulk_create, [Note(title=str(n)) for n in range(200)])
    titles = [(await bare(client))[1]["record"]["title"] for _ in range(200)]
    assert titles == [str(n) for n in range(200)]
    assert await client.silent()
