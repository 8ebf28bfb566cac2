"""Which connections are opened, what garbage and floods lead to, and how a server ends."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.server import SERVICE_KEY, Server
from tests.acceptance.support.worlds import ALL, World, someone
from tests.support.tokens import token
from tests.support.waiting import auntil


@pytest.mark.parametrize(
    "path", ["/realtime", "/realtime/websocket", "/realtime/v1/websocket"], ids=lambda p: p
)
async def test_every_route_speaks(world: World, path: str) -> None:
    async with await RawClient.open(world.server, path=path) as peer:
        # A process follows the log from its first join on.
        await peer.join("route", ALL)
        reply = await peer.push("phoenix", "heartbeat", {})
        assert reply["status"] == "ok"
        epoch, seq = world.orm.head()
        assert reply["response"] == {"epoch": epoch, "seq": seq}


async def test_a_client_without_vsn_speaks_the_first_serializer(world: World) -> None:
    async with await RawClient.open(world.server, vsn="") as peer:
        await peer.join("old", ALL)


@pytest.mark.parametrize("way", ["bearer", "token", "x-api-key", "apikey", "join"])
async def test_a_token_is_taken_from_every_place(world: World, way: str) -> None:
    me = someone(world)
    mine = token(me)
    key = mine if way == "apikey" else None
    query = f"token={mine}" if way == "token" else ""
    headers = {
        "bearer": {"Authorization": f"Bearer {mine}"},
        "x-api-key": {"x-api-key": mine},
    }.get(way)
    async with await RawClient.open(world.server, key=key, query=query, headers=headers) as peer:
        await peer.join("who", ALL, token=mine if way == "join" else None)
        world.orm.note(owner=me, title=f"by {way}")
        await peer.until_row(title=f"by {way}")


async def refusal(server: Server, **options: Any) -> int:
    """How a connection is refused: the HTTP status, or the close code after the upgrade."""
    try:
        peer = await RawClient.open(server, **options)
    except InvalidStatus as refused:
        return refused.response.status_code
    code = await peer.until_closed()
    await peer.close()
    return code


async def test_a_bad_token_opens_no_socket(world: World, uvicorn_world: World) -> None:
    expired = token(1, ttl=-60)
    forged = token(1)[:-6] + "AAAAAA"
    for key in (expired, forged, "not-a-key-of-ours", "sb_publishable_other"):
        assert await refusal(world.server, key=key) == 401, key
        assert await refusal(uvicorn_world.server, key=key) == 401, key


async def test_a_refused_handshake_says_why_in_its_body_and_in_the_log(world: World) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await RawClient.open(world.server, key=token(1, ttl=-60))
    body = json.loads(refused.value.response.body or b"")
    assert (refused.value.response.status_code, body) == (401, {"error": "Token has expired"})
    await auntil(lambda: "refused with 401: Token has expired" in world.server.log)


async def test_a_foreign_origin_opens_no_socket_without_a_key(world: World) -> None:
    evil = {"Origin": "https://evil.example"}
    assert await refusal(world.server, key=None, headers=evil) == 403
    async with await RawClient.open(world.server, headers=evil) as peer:
        await peer.join("by key", ALL)
    async with await RawClient.open(world.server, headers={"Origin": world.server.origin}) as peer:
        await peer.join("same origin", ALL)


async def test_an_unknown_serializer_opens_no_socket(world: World) -> None:
    assert await refusal(world.server, vsn="3.0.0") >= 400


async def test_garbage_is_answered_and_hurts_nobody(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("fine", ALL, token=token(me))
        garbage: list[str | bytes] = [
            "",
            "not json",
            "null",
            "[]",
            "[1,2,3]",
            '{"topic":"realtime:fine"}',
            '["1","1","realtime:fine","phx_join"]',
            '["1","1",null,"phx_join",{}]',
            "[" * 5000,
            b"",
            b"\x03",
            b"\x03\xff\xff\xff\xff\xff\x01short",
            b"\x09nonsense",
            "\x00",
        ]
        for message in garbage:
            await peer.send_raw(message)
        world.orm.note(owner=me, title="unharmed")
        await peer.until_row(title="unharmed")
        assert peer.close_code is None


async def test_a_message_to_a_topic_not_joined_is_answered(world: World) -> None:
    async with await RawClient.open(world.server) as peer:
        reply = await peer.push("realtime:nowhere", "broadcast", {"event": "x"})
        assert reply == {"status": "error", "response": {"reason": "unmatched topic"}}
        reply = await peer.push("realtime:nowhere", "phx_leave", {})
        assert reply["status"] == "ok"
        for topic in ("room", "realtime:"):
            ref = peer.next_ref()
            await peer.send(topic, "phx_join", {"config": {}}, ref=ref, join_ref=ref)
            assert (await peer.reply(ref)).payload["status"] == "error"


async def test_a_row_as_large_as_one_may_be_arrives_whole(world: World) -> None:
    """A frame of both images is twice as large as what a server takes from a client."""
    me, topic = someone(world), "realtime:large"
    body = "x" * (1_048_576 - 1_000)
    since = world.orm.head()[1]
    async with await RawClient.open(world.server) as peer:
        await peer.join("large", ALL, token=token(me))
        pk = world.orm.note(owner=me, title="large", body=body)
        frame = await peer.until_row(topic, title="large")
        assert frame.data["record"]["body"] == body
        world.orm.change("note", pk, title="larger")
        frame = await peer.until_row(topic, title="larger")
        assert frame.data["record"]["body"] == frame.data["old_record"]["body"] == body
        assert frame.data["errors"] is None
        assert (await peer.push("phoenix", "heartbeat", {}))["status"] == "ok"
    async with await RawClient.open(world.server) as again:
        await again.join("large", {**ALL, "since": since}, token=token(me))
        frame = await again.until_row(topic, title="larger")
        assert frame.data["record"]["body"] == frame.data["old_record"]["body"] == body


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
async def test_too_large_a_frame_closes_its_own_socket_only(fresh: Any, kind: str) -> None:
    world = fresh(kind, realtime={"LIMITS": {"frame_bytes": 50_000}})
    async with await RawClient.open(world.server) as other:
        peer = await RawClient.open(world.server)
        await peer.send("realtime:big", "broadcast", {"text": "x" * 50_000})
        assert await peer.until_closed() == 4413
        await peer.close()
        assert (await other.push("phoenix", "heartbeat", {}))["status"] == "ok"


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
async def test_a_slow_reader_is_closed_and_told_and_the_others_go_on(fresh: Any, kind: str) -> None:
    world = fresh(kind, realtime={"LIMITS": {"outbox_bytes": 2_000_000}})
    me = someone(world)
    async with (
        await RawClient.open(world.server) as slow,
        await RawClient.open(world.server) as quick,
    ):
        for peer in (slow, quick):
            await peer.join("bulk", ALL, token=token(me))
        slow.pause()
        body = "x" * 50_000
        for start in range(0, 200, 10):
            row = {"owner_id": me, "body": body}
            world.orm.many("note", [{**row, "title": str(n)} for n in range(start, start + 10)])
            await quick.until_row(title=str(start + 9))
            # The sign of life that the slow one does not give.
            await quick.push("phoenix", "heartbeat", {})
        slow.resume()
        # Who reads nothing for long may find the connection gone before the frame that says why.
        assert await slow.until_closed() in (4430, 1006)
        assert "slow_consumer" in world.server.log
        titles = [int(frame.data["record"]["title"]) for frame in quick.changes()]
        assert titles == list(range(200))
        assert len(slow.changes()) < 200


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
async def test_a_stopped_server_says_goodbye(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    async with await RawClient.open(world.server) as peer:
        await peer.join("until the end", ALL)
        await asyncio.to_thread(world.server.stop)
        # daphne may take the sockets away before the application can say so.
        assert await peer.until_closed() in ((1012, 1006) if kind == "daphne" else (1012,))
    world.server.start()
    async with await RawClient.open(world.server) as again:
        await again.join("until the end", ALL)


async def test_metrics_know_the_fullest_outbox_of_whatever_server(world: World) -> None:
    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", world.server.port, timeout=30)
        headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
        connection.request("GET", "/realtime/metrics", headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    async with await RawClient.open(world.server) as peer:
        await peer.join("measured", ALL)
        status, text = await asyncio.to_thread(ask)
    assert status == 200
    assert "realtime_outbox_max_bytes" in text


@pytest.mark.parametrize("home", ["world", "uvicorn_world"])
async def test_an_encoded_slash_belongs_to_the_name_of_an_event(
    request: pytest.FixtureRequest, home: str
) -> None:
    world: World = request.getfixturevalue(home)

    def post() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", world.server.port, timeout=30)
        path = "/realtime/v1/api/broadcast/room/events/a%2Fevents%2Fb"
        connection.request("POST", path, "{}", {"content-type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        return status

    async with await RawClient.open(world.server) as peer:
        await peer.join("room")
        assert await asyncio.to_thread(post) == 202
        heard = await peer.until(lambda f: f.event == "broadcast")
        assert heard.payload["event"] == "a/events/b"


def test_http_and_the_socket_live_on_one_port(world: World) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", world.server.port, timeout=30)
    connection.request("GET", "/admin/login/")
    response = connection.getresponse()
    assert response.status == 200 and b"<form" in response.read()
    connection.close()


def test_no_token_came_into_the_log(world: World) -> None:
    """Last in this module: tokens went through this server by every door."""
    assert "eyJ" not in world.server.log
    assert "Traceback" not in world.server.log
