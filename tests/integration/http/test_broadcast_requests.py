"""Broadcasts by POST: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.test import AsyncClient, override_settings

from realtime.models import Message
from tests.support.socket_client import db
from tests.support.tokens import token
from tests.support.topics import allow, heard, one, sent

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")


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
    id_ = str(await db(lambda: Message.objects.get().id))
    assert told["meta"] == {"id": id_, "user_id": "a"}


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
