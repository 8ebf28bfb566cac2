"""Broadcast and presence with the official JavaScript clients, unmodified, on a real server."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.acceptance.support.node_client import Node
from tests.acceptance.support.server import SERVICE_KEY
from tests.acceptance.support.worlds import World
from tests.support.tokens import token

VERSIONS = ["1.0.0", "2.0.0"]
_rooms = itertools.count()

Event = dict[str, Any]


@pytest.fixture
def room() -> str:
    """A topic of this test's own."""
    return f"room-{next(_rooms)}"


def heard(node: Node, client: str) -> list[Event]:
    return [e for e in node.events if e["event"] == "broadcast" and e["client"] == client]


async def hears(node: Node, client: str, name: str) -> Event:
    """The payload of the first broadcast of this name that the client hears."""
    event = await node.until(
        lambda e: (
            e["event"] == "broadcast" and e["client"] == client and e["payload"]["event"] == name
        )
    )
    return event


def names(state: dict[str, list[Event]]) -> dict[str, list[Any]]:
    return {key: sorted(str(meta.get("name")) for meta in metas) for key, metas in state.items()}


async def sees(node: Node, client: str, wanted: dict[str, list[Any]], start: int = 0) -> Event:
    """Waits until the client's presence state is this."""
    return await node.until(
        lambda e: (
            e["event"] == "presence" and e["client"] == client and names(e["state"]) == wanted
        ),
        start=start,
    )


@pytest.mark.parametrize("receiver", VERSIONS)
@pytest.mark.parametrize("sender", VERSIONS)
async def test_json_crosses_every_pair_of_versions(
    world: World, node: Node, room: str, sender: str, receiver: str
) -> None:
    await node.open(world.server, "sender", vsn=sender)
    await node.open(world.server, "receiver", vsn=receiver)
    config = {"broadcast": {"ack": True, "self": True}}
    for client in ("sender", "receiver"):
        await node.subscribe(room, client=client, broadcasts=True, config=config)
    payload = {"text": "grüße", "n": 1.5, "list": [1, None, {"x": True}]}
    sent = await node.do("send", client="sender", channel=room, name="e", payload=payload)
    assert sent == "ok"
    for client in ("sender", "receiver"):
        event = await hears(node, client, "e")
        assert event["payload"] == {"type": "broadcast", "event": "e", "payload": payload}


async def test_bytes_reach_the_new_version_as_bytes_and_the_old_one_not_at_all(
    world: World, node: Node, room: str
) -> None:
    for client, vsn in (("sender", "2.0.0"), ("new", "2.0.0"), ("old", "1.0.0")):
        await node.open(world.server, client, vsn=vsn)
        config = {"broadcast": {"ack": True}}
        await node.subscribe(room, client=client, broadcasts=True, config=config)
    await node.do("send", client="sender", channel=room, name="raw", bytes="00ff10")
    await node.do("send", client="sender", channel=room, name="after", payload={})
    event = await hears(node, "new", "raw")
    assert (event["bytes"], event["payload"]["payload"]) == (True, "00ff10")
    await hears(node, "old", "after")
    assert [e["payload"]["event"] for e in heard(node, "old")] == ["after"]


async def test_http_reaches_the_sockets_with_json_and_bytes(
    world: World, node: Node, room: str
) -> None:
    await node.open(world.server, "listener")
    await node.subscribe(room, client="listener", broadcasts=True)
    # The client may send without having subscribed.
    await node.open(world.server, "caller")
    await node.do("channel", client="caller", channel=room, bindings=[])
    for options in ({"payload": {"n": 1}}, {"bytes": "0102"}):
        answer = await node.do("httpSend", client="caller", channel=room, name="e", **options)
        assert answer == {"success": True}
    first = await hears(node, "listener", "e")
    assert first["payload"]["payload"] == {"n": 1}
    last = await node.until(lambda e: e["event"] == "broadcast" and e["bytes"])
    assert last["payload"]["payload"] == "0102"


async def test_a_private_room_of_the_same_name_is_another_room(
    world: World, node: Node, room: str
) -> None:
    world.orm.policy(f"hear {room}", {"topic": room}, "receive_broadcast", audience="anyone")
    await node.open(world.server, "public")
    await node.open(world.server, "private")
    await node.open(world.server, "service", key=SERVICE_KEY)
    await node.subscribe(room, client="public", broadcasts=True)
    for client in ("private", "service"):
        config = {"private": True, "broadcast": {"ack": True}}
        await node.subscribe(room, client=client, broadcasts=True, config=config)
    await node.do("send", client="service", channel=room, name="secret", payload={})
    await node.do("send", client="public", channel=room, name="open", payload={})
    await hears(node, "private", "secret")
    assert heard(node, "public") == []
    assert [e["payload"]["event"] for e in heard(node, "private")] == ["secret"]
    # A client that may not send is told: it fails at once, and not by a timeout.
    sent = await node.do("send", client="private", channel=room, name="e", payload={})
    assert sent == "error"
    answer = await node.do("httpSend", client="service", channel=room, name="h", payload={"n": 1})
    assert answer == {"success": True}
    await hears(node, "private", "h")


async def test_who_may_not_join_a_private_room_is_told_why(
    world: World, node: Node, room: str
) -> None:
    await node.open(world.server)
    await node.do("channel", client="me", channel=room, bindings=[], config={"private": True})
    event = await node.status(room, "CHANNEL_ERROR")
    assert event["error"] == (
        "Unauthorized: You do not have permissions to read from this Channel topic: " + room
    )


async def test_stored_broadcasts_are_replayed_to_who_comes_later(
    world: World, node: Node, room: str
) -> None:
    for action in ("receive_broadcast", "send_broadcast"):
        world.orm.policy(f"{action} {room}", {"topic": room}, action, audience="anyone")
    config: dict[str, Any] = {"private": True, "broadcast": {"ack": True}}
    await node.open(world.server, "early")
    await node.subscribe(room, client="early", broadcasts=True, config=config)
    for number in range(3):
        sent = await node.do(
            "send", client="early", channel=room, name="e", payload={"n": number}, persist=True
        )
        assert sent == "ok"
    answer = await node.do(
        "httpSend", client="early", channel=room, name="e", bytes="0a", persist=True
    )
    assert answer == {"success": True}
    await node.open(world.server, "late")
    replay = {"replay": {"since": 0, "limit": 3}, "ack": True}
    late = {**config, "broadcast": replay}
    await node.subscribe(room, client="late", broadcasts=True, config=late)
    await node.until(
        lambda e: e["event"] == "broadcast" and e["client"] == "late" and bool(e["bytes"])
    )
    told = [event["payload"] for event in heard(node, "late")]
    assert [payload["payload"] for payload in told] == [{"n": 1}, {"n": 2}, "0a"]
    assert all(payload["meta"]["replayed"] is True for payload in told)
    # Its own come back to nobody who did not ask for them.
    assert [e["payload"]["payload"] for e in heard(node, "early")] == ["0a"]


# --- presence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vsn", VERSIONS)
async def test_presence_from_the_first_to_the_last(
    world: World, node: Node, room: str, vsn: str
) -> None:
    for client in ("ann", "bob"):
        await node.open(world.server, client, vsn=vsn)
        config = {"presence": {"key": client, "enabled": True}}
        await node.subscribe(room, client=client, presence=True, config=config)
        assert await node.do("track", client=client, channel=room, payload={"name": client}) == "ok"
    for client in ("ann", "bob"):
        await sees(node, client, {"ann": ["ann"], "bob": ["bob"]})
    start = len(node.events)
    assert await node.do("track", client="bob", channel=room, payload={"name": "Bob"}) == "ok"
    await sees(node, "ann", {"ann": ["ann"], "bob": ["Bob"]}, start)
    start = len(node.events)
    assert await node.do("untrack", client="bob", channel=room) == "ok"
    left = await node.until(lambda e: e["event"] == "leave" and e["client"] == "ann", start=start)
    assert (left["key"], left["metas"][0]["name"]) == ("bob", "Bob")
    await sees(node, "ann", {"ann": ["ann"]}, start)
    start = len(node.events)
    await node.do("track", client="bob", channel=room, payload={"name": "again"})
    await sees(node, "ann", {"ann": ["ann"], "bob": ["again"]}, start)
    await node.do("cut", client="bob")
    await sees(node, "ann", {"ann": ["ann"]}, start)


async def test_two_tabs_of_one_user_are_one_key_with_two_metas(
    world: World, node: Node, room: str
) -> None:
    for client in ("watcher", "laptop", "phone"):
        await node.open(world.server, client)
        key = "watcher" if client == "watcher" else "ann"
        config = {"presence": {"key": key, "enabled": True}}
        await node.subscribe(room, client=client, presence=True, config=config)
        if client != "watcher":
            await node.do("track", client=client, channel=room, payload={"name": client})
    await sees(node, "watcher", {"ann": ["laptop", "phone"]})
    await node.do("unsubscribe", client="laptop", channel=room)
    await sees(node, "watcher", {"ann": ["phone"]}, len(node.events) - 1)


async def test_a_sender_without_handlers_is_present_too(
    world: World, node: Node, room: str
) -> None:
    await node.open(world.server, "watcher")
    config = {"presence": {"key": "watcher", "enabled": True}}
    await node.subscribe(room, client="watcher", presence=True, config=config)
    await node.open(world.server, "quiet")
    await node.subscribe(room, client="quiet", config={"presence": {"key": "quiet"}})
    assert await node.do("track", client="quiet", channel=room, payload={"name": "q"}) == "ok"
    await sees(node, "watcher", {"quiet": ["q"]})


@pytest.mark.parametrize("key", ["ids", "__proto__", "toString"])
async def test_a_key_that_would_break_the_clients_is_refused_and_nobody_breaks(
    world: World, node: Node, room: str, key: str
) -> None:
    await node.open(world.server, "watcher")
    config = {"presence": {"key": "watcher", "enabled": True}}
    await node.subscribe(room, client="watcher", presence=True, config=config)
    await node.open(world.server, "odd")
    await node.subscribe(
        room, client="odd", presence=True, config={"presence": {"key": key, "enabled": True}}
    )
    assert await node.do("track", client="odd", channel=room, payload={"name": "x"}) == "error"
    await node.do("track", client="watcher", channel=room, payload={"name": "w"})
    await sees(node, "watcher", {"watcher": ["w"]})


async def test_limits_are_answered_and_end_no_channel(fresh: Any, node: Node) -> None:
    limits = {"presence_per_30_seconds": 2, "broadcast_burst": 2, "broadcasts_per_second": 0.01}
    world = fresh(realtime={"LIMITS": limits})
    await node.open(world.server)
    config = {"broadcast": {"ack": True}, "presence": {"key": "me", "enabled": True}}
    await node.subscribe("room", presence=True, config=config)
    sent = [
        await node.do("send", client="me", channel="room", name="e", payload={}) for _ in range(3)
    ]
    assert sent == ["ok", "ok", "error"]
    tracked = [
        await node.do("track", client="me", channel="room", payload={"n": n}) for n in range(3)
    ]
    assert tracked == ["ok", "ok", "error"]
    assert (await node.do("state", client="me", channel="room"))["channel"] == "joined"


async def test_another_token_opens_a_room_and_its_loss_ends_it(
    world: World, node: Node, room: str
) -> None:
    world.orm.policy(f"claim {room}", {"topic": "$claims.room"}, "receive_broadcast", "anyone")
    await node.open(world.server, "me", library="realtime", token=token("x", room=room))
    await node.subscribe(room, broadcasts=True, config={"private": True})
    start = len(node.events)
    await node.do("setAuth", client="me", token=token("x", room="elsewhere"))
    system = await node.until(lambda e: e["event"] == "system", start=start)
    assert system["payload"]["message"] == (
        "You no longer have permission to read from this Channel topic: " + room
    )
    await node.status(room, "CHANNEL_ERROR", start=start)
    await node.do("setAuth", client="me", token=token("x", room=room))
    await node.status(room, "SUBSCRIBED", start=start)


def test_the_server_wrote_no_token_and_no_traceback_into_its_log(world: World) -> None:
    """Last in this module: everything above went through the same server."""
    log = world.server.log
    assert "eyJ" not in log
    assert "Traceback" not in log
