"""The official JavaScript clients, unmodified: tokens, channels left and joined, lost connections,
broadcasts.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.support.node_client import LIBRARIES, Node
from tests.acceptance.support.worlds import ALL, World, someone
from tests.support.tokens import token


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_set_auth_makes_a_joined_channel_another_persons(
    world: World, node: Node, vsn: str
) -> None:
    ada, bob = someone(world), someone(world)
    await node.open(world.server, library="realtime", vsn=vsn, token=token(ada))
    await node.subscribe("moving", ALL)
    world.orm.note(owner=bob, title="too early")
    world.orm.note(owner=ada, title="first")
    await node.change("moving", title="first")
    start = len(node.events)
    await node.do("setAuth", client="me", token=token(bob))
    await node.until(
        lambda e: e["event"] == "system" and e["payload"]["message"] == "Subscribed to PostgreSQL",
        start=start,
    )
    world.orm.note(owner=ada, title="too late")
    world.orm.note(owner=bob, title="second")
    await node.change("moving", title="second")
    titles = [event["payload"]["new"]["title"] for event in node.changes("moving")]
    assert titles == ["first", "second"]


async def test_a_heartbeat_brings_the_callbacks_new_token(world: World, node: Node) -> None:
    ada, bob = someone(world), someone(world)
    await node.open(world.server, library="realtime", token=token(ada), callback=True)
    await node.subscribe("callback", ALL)
    world.orm.note(owner=ada, title="as Ada")
    await node.change("callback", title="as Ada")
    start = len(node.events)
    await node.do("setCallbackToken", client="me", token=token(bob))
    await node.do("heartbeat", client="me")
    await node.until(lambda e: e["event"] == "heartbeat" and e["status"] == "ok", start=start)
    await node.until(lambda e: e["event"] == "system", start=start)
    world.orm.note(owner=ada, title="Ada's still")
    world.orm.note(owner=bob, title="as Bob")
    await node.change("callback", title="as Bob")
    titles = [event["payload"]["new"]["title"] for event in node.changes("callback")]
    assert titles == ["as Ada", "as Bob"]


async def test_a_channel_whose_token_runs_out_comes_back_with_a_fresh_one(
    world: World, node: Node
) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me, ttl=3))
    await node.subscribe("expiring", ALL)
    await node.do("setCallbackToken", client="me", token=token(me))
    start = len(node.events)
    ended = await node.until(
        lambda e: e["event"] == "system" and e["payload"]["status"] == "error", start=start
    )
    assert ended["payload"]["message"].startswith("Token has expired")
    # What a heartbeat does every 25 seconds; the rejoin carries the token it brings.
    await node.do("heartbeat", client="me")
    await node.status("expiring", "SUBSCRIBED", start=start)
    world.orm.note(owner=me, title="after")
    await node.change("expiring", title="after")


async def test_a_refused_token_is_told_and_hurts_no_other_channel(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, "good", token=token(me))
    await node.subscribe("fine", ALL, client="good")
    await node.open(world.server, "bad", token=token(me, ttl=-5))
    await node.do("channel", client="bad", channel="refused", bindings=[ALL])
    refused = await node.status("refused", "CHANNEL_ERROR", client="bad")
    assert "Token has expired" in refused["error"]
    world.orm.note(owner=me, title="unharmed")
    await node.change("fine", client="good", title="unharmed")


async def test_a_revoked_right_ends_at_its_own_place_in_the_log(world: World, node: Node) -> None:
    me = someone(world)
    using = {"title__startswith": f"granted {me}"}
    world.orm.policy(f"granted {me}", using, audience="permission")
    world.orm.grant(me)
    await node.open(world.server, token=token(me))
    await node.subscribe("revoked", ALL)
    title = f"granted {me}"
    world.orm.note(title=f"{title}: before")
    await node.change("revoked", title=f"{title}: before")
    world.orm.revoke(me)
    world.orm.note(title=f"{title}: never")
    world.orm.note(owner=me, title="own")
    await node.change("revoked", title="own")
    titles = [event["payload"]["new"]["title"] for event in node.changes("revoked")]
    assert titles == [f"{title}: before", "own"]


async def test_an_unsubscribed_channel_hears_nothing_more(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    await node.subscribe("left", ALL)
    await node.subscribe("staying", ALL)
    world.orm.note(owner=me, title="before")
    await node.change("left", title="before")
    assert await node.do("unsubscribe", client="me", channel="left") == "ok"
    # The server's answer to phx_leave, after which RT-S1 holds.
    await node.until(
        lambda e: (
            e["event"] == "frame" and "phx_close" in e["text"] and "realtime:left" in e["text"]
        )
    )
    world.orm.note(owner=me, title="after")
    await node.change("staying", title="after")
    assert [e["payload"]["new"]["title"] for e in node.changes("left")] == ["before"]
    frames = [text for text in node.frames() if "realtime:left" in text and "after" in text]
    assert frames == []


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES)
async def test_a_topic_left_and_joined_again_at_once_works(
    world: World, node: Node, library: str, vsn: str
) -> None:
    me = someone(world)
    await node.open(world.server, library=library, vsn=vsn, token=token(me))
    await node.subscribe("anchor", ALL)
    await node.subscribe("again", ALL)
    for _ in range(5):
        await node.do("remove", client="me", channel="again")
        await node.subscribe("again", ALL)
    world.orm.note(owner=me, title="still here")
    await node.change("again", title="still here")
    await node.change("anchor", title="still here")
    state = await node.do("state", client="me", channel="again")
    assert state["channel"] == "joined"


async def test_a_client_removes_all_its_channels_and_starts_anew(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    await node.subscribe("one", ALL)
    await node.subscribe("two", ALL)
    assert await node.do("removeAll", client="me") == ["ok", "ok"]
    await node.subscribe("three", ALL)
    world.orm.note(owner=me, title="anew")
    await node.change("three", title="anew")
    assert node.changes("one") == node.changes("two") == []


async def test_a_cut_connection_comes_back_by_itself(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me), reconnect=50)
    await node.subscribe("cut", ALL)
    start = len(node.events)
    await node.do("cut", client="me")
    await node.status("cut", "SUBSCRIBED", start=start)
    world.orm.note(owner=me, title="back")
    await node.change("cut", title="back")
    assert len(node.changes("cut")) == 1


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
async def test_clients_come_back_to_a_restarted_server(fresh: Any, node: Node, kind: str) -> None:
    world = fresh(kind)
    me = someone(world)
    await node.open(world.server, "v1", vsn="1.0.0", token=token(me), reconnect=50)
    await node.open(world.server, "v2", vsn="2.0.0", token=token(me), reconnect=50)
    for client in ("v1", "v2"):
        await node.subscribe("notes", ALL, client=client)
    world.orm.note(owner=me, title="before")
    for client in ("v1", "v2"):
        await node.change("notes", client=client, title="before")
    start = len(node.events)
    world.server.stop()
    world.orm.note(owner=me, title="meanwhile")
    world.server.start()
    for client in ("v1", "v2"):
        await node.status("notes", "SUBSCRIBED", client=client, start=start)
    world.orm.note(owner=me, title="after")
    for client in ("v1", "v2"):
        await node.change("notes", client=client, title="after")
        heard = [e["payload"]["new"]["title"] for e in node.changes("notes", client)]
        assert heard[0] == "before" and heard[-1] == "after" and heard.count("after") == 1


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_broadcasts_reach_the_others_in_the_topic(world: World, node: Node, vsn: str) -> None:
    for client in ("sender", "receiver", "old receiver", "elsewhere"):
        version = "1.0.0" if client == "old receiver" else vsn
        await node.open(world.server, client, vsn=version)
        topic = "another room" if client == "elsewhere" else "room"
        await node.subscribe(
            topic, client=client, broadcasts=True, config={"broadcast": {"ack": True}}
        )
    sent = await node.do(
        "send", client="sender", channel="room", name="wave", payload={"hand": "left"}
    )
    assert sent == "ok"
    for client in ("receiver", "old receiver"):
        heard = await node.until(
            lambda e, who=client: e["event"] == "broadcast" and e["client"] == who
        )
        assert heard["payload"] == {
            "type": "broadcast",
            "event": "wave",
            "payload": {"hand": "left"},
        }
    who = {event["client"] for event in node.events if event["event"] == "broadcast"}
    assert who == {"receiver", "old receiver"}


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES)
async def test_no_frame_carries_a_null_payload(
    world: World, node: Node, library: str, vsn: str
) -> None:
    me = someone(world)
    await node.open(world.server, library=library, vsn=vsn, token=token(me))
    config = {"presence": {"key": "me", "enabled": True}}
    await node.subscribe("nulls", ALL, config=config, presence=True)
    await node.do("heartbeat", client="me")
    start = len(node.events)
    await node.do("setAuth", client="me", token=token(me, ttl=1800))
    await node.until(lambda e: e["event"] == "system", start=start)
    pk = world.orm.note(owner=me, title="x")
    world.orm.delete("note", pk)
    await node.until(lambda e: e["event"] == "change" and e["payload"]["eventType"] == "DELETE")
    await node.do("unsubscribe", client="me", channel="nulls")
    frames = [json.loads(text) for text in node.frames()]
    payloads = [frame[4] if vsn == "2.0.0" else frame["payload"] for frame in frames]
    assert payloads and all(isinstance(payload, dict) for payload in payloads)


def test_the_server_wrote_no_token_and_no_traceback_into_its_log(world: World) -> None:
    """Last in this module: everything above went through the same server."""
    log = world.server.log
    assert "eyJ" not in log
    assert "Traceback" not in log
