"""Filters that cost too much on a row: their subscription ends, in words, and no other does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.socket_client import Client, db
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

# Each is within the bounds of a filter, and too costly on a long text.
COSTLY = "body=not.match.[ab].{90}x"
LONG = "abcd" * 5_000


async def joined(*bindings: dict[str, Any], topic: str = "realtime:room") -> Client:
    client = await Client().connect()
    bindings = tuple(
        {"event": "*", "schema": "public", "table": "zoo_note", **binding} for binding in bindings
    )
    reply = await client.join(topic, postgres_changes=list(bindings))
    assert reply["status"] == "ok"
    return client


async def ended(client: Client) -> str:
    frame = await client.until(lambda f: f[3] == "system" and f[4]["status"] == "error")
    assert frame[4]["extension"] == "postgres_changes"
    return str(frame[4]["message"])


async def change(client: Client) -> dict[str, Any]:
    frame = await client.until(lambda f: f[3] == "postgres_changes")
    return dict(frame[4])


@pytest.mark.parametrize("live", [False, True])
async def test_the_subscription_ends_and_the_other_bindings_of_the_channel_go_on(
    granted: Any, live: bool
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await joined({"filter": COSTLY, "live": live}, {"filter": "score=eq.1"})
    await db(Note.objects.create, title="hidden", body=LONG, score=1)
    await db(Note.objects.create, title="long", body=LONG, score=1, is_public=True)
    told = await change(client)
    assert (told["data"]["record"]["title"], len(told["ids"])) == ("long", 1)
    message = await ended(client)
    assert "Subscription ended" in message and "cost too much" in message and "body" in message
    await db(Note.objects.create, title="short", body="a", score=1, is_public=True)
    told = await change(client)
    assert (told["data"]["record"]["title"], len(told["ids"])) == ("short", 1)


async def test_permissions_that_change_do_not_bring_it_back(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await joined({"filter": COSTLY}, {"filter": "score=eq.1"})
    await db(Note.objects.create, title="long", body=LONG, score=1, is_public=True)
    await ended(client)
    await db(granted, "view_note", using={"score__gte": 1})
    await db(Note.objects.create, title="short", body="a", score=1)
    frame = await client.until(
        lambda f: f[3] == "postgres_changes" and f[4]["data"]["record"]["title"] == "short"
    )
    assert len(frame[4]["ids"]) == 1


@pytest.mark.parametrize("asked", [{"since": 0}, {"snapshot": True}])
async def test_it_ends_on_the_way_to_the_head_too(granted: Any, asked: dict[str, Any]) -> None:
    await db(granted, "view_note", using={"is_public": True})
    for title, body in (("one", "a"), ("two", LONG), ("three", "b")):
        await db(Note.objects.create, title=title, body=body, score=1, is_public=True)
    client = await joined({"filter": COSTLY, **asked}, {"filter": "score=eq.1", **asked})
    assert "Subscription ended" in await ended(client)
    await db(Note.objects.create, title="four", body="a", score=1, is_public=True)
    frame = await client.until(
        lambda f: f[3] == "postgres_changes" and f[4]["data"]["record"]["title"] == "four"
    )
    assert len(frame[4]["ids"]) == 1


async def test_a_pattern_that_is_too_large_is_refused_at_the_join(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    many = ",".join(f"body=like.%25{n}" for n in range(21))
    for filter_ in ("body=match.[ab].{900}x", r"body=match.\pL{205}", many):
        client = await joined({"filter": filter_})
        message = await ended(client)
        assert "pattern" in message


async def test_the_other_channels_of_the_socket_go_on(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await joined({"filter": COSTLY})
    other = {"event": "*", "schema": "public", "table": "zoo_note", "filter": "body=like.a%"}
    assert (await client.join("realtime:other", postgres_changes=[other]))["status"] == "ok"
    await db(Note.objects.create, title="long", body=LONG, score=1, is_public=True)
    assert (await change(client))["data"]["record"]["title"] == "long"
    assert "Subscription ended" in await ended(client)
    await db(Note.objects.create, title="short", body="a", score=1, is_public=True)
    frame = await client.until(lambda f: f[3] == "postgres_changes")
    assert (frame[2], frame[4]["data"]["record"]["title"]) == ("realtime:other", "short")


async def test_the_patterns_of_all_channels_of_a_socket_are_bounded(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    client = await Client().connect()

    async def join(topic: int) -> tuple[str, str]:
        many = ",".join(f"body=not.like.%25{topic}-{n}" for n in range(20))
        wanted = {"event": "*", "schema": "public", "table": "zoo_note", "filter": many}
        config = {"postgres_changes": [wanted]}
        ref = await client.push(f"realtime:{topic}", "phx_join", {"config": config})
        frame = await client.until(lambda f: f[3] == "system")
        return ref, str(frame[4]["message"])

    joins = [await join(topic) for topic in range(10)]
    assert {message for _, message in joins} == {"Subscribed to PostgreSQL"}
    _, refused = await join(10)
    assert "too many patterns. Maximum 200 for all filters of a connection" in refused
    await client.push("realtime:3", "phx_leave", {}, join_ref=joins[3][0])
    await client.until(lambda f: f[3] == "phx_close")
    assert (await join(11))[1] == "Subscribed to PostgreSQL"
