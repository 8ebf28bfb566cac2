"""What goes over the socket, frame by frame, with a client that hides nothing.

The first ten tests are the ten things that silently break an almost compatible server.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from tests.acceptance.support.raw_client import RawClient
from tests.acceptance.support.server import SERVICE_KEY
from tests.acceptance.support.worlds import ALL, World, someone
from tests.support.tokens import token

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


@VERSIONS
async def test_no_payload_is_ever_null(world: World, vsn: str) -> None:
    me = someone(world)
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        await peer.join("nulls", ALL, token=token(me), presence={"enabled": True})
        pk = world.orm.note(owner=me, title="x")
        world.orm.delete("note", pk)
        await peer.until(lambda f: f.event == "postgres_changes" and f.data["type"] == "DELETE")
        await peer.push("phoenix", "heartbeat", None)
        await peer.push("realtime:nulls", "no such event", None)
        await peer.push("realtime:nulls", "phx_leave", None)
        await peer.until(lambda f: f.event == "phx_close")
        assert all(isinstance(frame.payload, dict) for frame in peer.frames)


@VERSIONS
async def test_the_join_reply_leaves_before_any_change(world: World, vsn: str) -> None:
    me = someone(world)
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        world.orm.begin("write_notes", 0, 300, [me])
        refs = [await peer.start_join(f"busy {n}", ALL, token=token(me)) for n in range(10)]
        for ref in refs:
            await peer.reply(ref)
        await asyncio.to_thread(world.orm.finish)
        world.orm.note(owner=me, title="the end")
        log: list[int] = []
        for number in range(10):
            topic = f"realtime:busy {number}"
            await peer.until_row(topic, title="the end")
            first = next(frame for frame in peer.frames if frame.topic == topic)
            assert first.event == "phx_reply"
            # And from the reply's place on not one change is missing.
            log = log or [seq for seq, *_ in world.orm.log()]
            start = first.payload["response"]["seq"]
            seqs = [frame.data["seq"] for frame in peer.changes(f"busy {number}")]
            assert seqs == [seq for seq in log if seq > start]


ODD_BINDINGS: list[dict[str, Any]] = [
    {"table": "zoo_note", "schema": "public", "event": "*"},
    {"event": "insert", "schema": "public", "table": "zoo_note", "filter": "  score=eq.1 "},
    {"event": "*", "schema": "public", "table": "zoo_note", "filter": ""},
    {"event": "*", "schema": "public", "table": "zoo_note", "filter": None},
    {"event": "UPDATE", "schema": "public"},
    {"event": "*", "schema": "public", "table": "no such table"},
    {"event": "*", "schema": "public", "table": "zoo_note", "select": ["title"], "since": None},
]


@VERSIONS
async def test_bindings_come_back_exactly_as_sent_in_the_same_order(world: World, vsn: str) -> None:
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        ref = await peer.join("echo", *ODD_BINDINGS, token=token(someone(world)))
        echoed = (await peer.reply(ref)).payload["response"]["postgres_changes"]
        compared = ("event", "schema", "table", "filter")
        for sent, came in zip(ODD_BINDINGS, echoed, strict=True):
            assert {k: came.get(k) for k in compared} == {k: sent.get(k) for k in compared}


@VERSIONS
async def test_binding_ids_are_integers_and_stable(world: World, vsn: str) -> None:
    me = someone(world)

    async def ids(*bindings: dict[str, Any]) -> list[Any]:
        async with await RawClient.open(world.server, vsn=vsn) as peer:
            ref = await peer.join("ids", *bindings, token=token(me))
            reply = await peer.reply(ref)
            return [binding["id"] for binding in reply.payload["response"]["postgres_changes"]]

    first = await ids(ALL, {**ALL, "filter": "score=eq.1"})
    assert all(type(one) is int and 0 <= one < 2**53 for one in first)
    assert first[0] != first[1]
    assert await ids(ALL, {**ALL, "filter": "score=eq.1"}) == first
    assert await ids() == []


async def test_a_channel_that_the_server_ends_ends_by_phx_error(world: World) -> None:
    """The JavaScript client never rejoins after a phx_close."""
    async with await RawClient.open(world.server) as peer:
        ref = await peer.join("expiring", ALL, token=token(someone(world), ttl=2))
        error = await peer.until(lambda f: f.event == "phx_error")
        assert error.topic == "realtime:expiring"
        assert error.join_ref == ref and error.ref == ref
        assert not [frame for frame in peer.frames if frame.event == "phx_close"]


@VERSIONS
async def test_a_close_carries_the_ref_of_its_join(world: World, vsn: str) -> None:
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        ref = await peer.join("closing", ALL)
        reply = await peer.push("realtime:closing", "phx_leave", {}, join_ref=ref)
        assert reply == {"status": "ok", "response": {}}
        close = await peer.until(lambda f: f.event == "phx_close")
        assert close.ref == ref


async def test_broadcasts_are_taken_as_text_and_as_binary(world: World) -> None:
    async with (
        await RawClient.open(world.server) as sender,
        await RawClient.open(world.server) as receiver,
    ):
        ack = {"ack": True}
        ref = await sender.join("room", broadcast=ack)
        await receiver.join("room")
        text = {"type": "broadcast", "event": "text", "payload": {"a": 1}}
        assert (await sender.push("realtime:room", "broadcast", text, ref))["status"] == "ok"
        parts = [ref.encode(), b"77", b"realtime:room", b"json", b""]
        body = b'{"a":2}'
        frame = bytes([3, *map(len, parts), 1]) + b"".join(parts) + body
        await sender.send_raw(frame)
        assert (await sender.reply("77")).payload["status"] == "ok"
        first = await receiver.until(lambda f: f.event == "broadcast")
        assert first.payload == text
        if not receiver.binary:
            second = await receiver.until(
                lambda f: f.event == "broadcast" and f.payload["event"] == "json"
            )
            assert second.payload["payload"] == {"a": 2}
        assert all(message[0] == 4 for message in receiver.binary)


async def test_the_first_serializer_always_has_a_ref_and_whole_payloads(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server, vsn="1.0.0") as peer:
        await peer.join("keys", ALL, {**ALL, "table": "nothing"}, token=token(me))
        world.orm.note(owner=me, title="keys")
        change = await peer.until_row(title="keys")
        await peer.send("phoenix", "heartbeat", {}, ref=None)
        await peer.until(lambda f: f.topic == "phoenix")
        for frame in peer.frames:
            assert json.loads(frame.text).keys() == {"topic", "event", "payload", "ref"}
        assert change.data["errors"] is None and change.ref is None
        systems = [frame for frame in peer.frames if frame.event == "system"]
        assert {frame.payload["status"] for frame in systems} == {"ok", "error"}
        for frame in systems:
            assert frame.payload.keys() >= {"status", "message", "extension", "channel"}
            assert frame.ref is None


@VERSIONS
async def test_a_leave_and_a_join_back_to_back_leave_the_new_channel_alive(
    world: World, vsn: str
) -> None:
    me = someone(world)
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        topic = "realtime:hasty"
        old = await peer.join("hasty", ALL, token=token(me))
        await peer.send(topic, "phx_leave", {}, ref=peer.next_ref(), join_ref=old)
        new = await peer.join("hasty", ALL, token=token(me))
        world.orm.note(owner=me, title="alive")
        await peer.until_row(title="alive")
        closes = [frame for frame in peer.frames if frame.event == "phx_close"]
        assert all(frame.join_ref != new and frame.ref != new for frame in closes)
        # And so do two joins without a leave between them.
        newest = await peer.join("hasty", ALL, token=token(me))
        world.orm.note(owner=me, title="alive again")
        await peer.until_row(title="alive again")
        closes = [frame for frame in peer.frames if frame.event == "phx_close"]
        assert all(newest not in (frame.join_ref, frame.ref) for frame in closes)
        assert len([f for f in peer.changes() if f.data["record"]["title"] == "alive again"]) == 1
        if vsn == "1.0.0":
            # This serializer has no join_ref: Python's client would take it for the new one's.
            second = [f for f in closes if f.ref == new]
            assert second == []


@VERSIONS
async def test_joined_means_that_changes_flow(world: World, vsn: str) -> None:
    me = someone(world)
    async with await RawClient.open(world.server, vsn=vsn) as peer:
        for round_ in range(10):
            await peer.join(f"flow {round_}", ALL, token=token(me))
            world.orm.note(owner=me, title=f"flow {round_}")
        await peer.until_row("realtime:flow 9", title="flow 9")
        for round_ in range(10):
            # What was written just before may come too, when it had no number yet.
            titles = [f.data["record"]["title"] for f in peer.changes(f"flow {round_}")]
            assert titles[-(10 - round_) :] == [f"flow {later}" for later in range(round_, 10)]
            told = await peer.system(f"flow {round_}")
            assert told.payload["message"] == "Subscribed to PostgreSQL"


async def test_opaque_keys_are_roles_and_not_tokens(world: World) -> None:
    someone_else = someone(world)
    async with (
        await RawClient.open(world.server) as anon,
        await RawClient.open(world.server, key=SERVICE_KEY) as service,
    ):
        # Clients repeat their key as the token of each join when nobody is signed in.
        await anon.join("keys", ALL, token="sb_publishable_test")
        await service.join("keys", ALL, token="sb_publishable_test")
        world.orm.note(owner=someone_else, title="secret")
        world.orm.note(title="open", is_public=True)
        await anon.until_row(title="open")
        await service.until_row(title="open")
        assert [f.data["record"]["title"] for f in anon.changes()] == ["open"]
        assert [f.data["record"]["title"] for f in service.changes()] == ["secret", "open"]


async def test_a_change_has_the_shape_clients_expect(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        ref = await peer.join("shape", ALL, token=token(me))
        reply = (await peer.reply(ref)).payload["response"]
        pk = world.orm.note(owner=me, title="shape", price="12.50")
        frame = await peer.until_row(title="shape")
        assert (frame.join_ref, frame.ref, frame.topic) == (None, None, "realtime:shape")
        assert frame.payload["ids"] == [reply["postgres_changes"][0]["id"]]
        data = frame.data
        assert (data["schema"], data["table"], data["type"]) == ("public", "zoo_note", "INSERT")
        assert "old_record" not in data
        types = {column["name"]: column["type"] for column in data["columns"]}
        assert types["id"] == "int8" and types["title"] == "varchar" and types["price"] == "numeric"
        assert list(types) == list(data["record"])
        assert data["record"]["id"] == pk
        assert len(data["commit_timestamp"]) == len("2025-11-19T00:22:40.877123Z")
        world.orm.change("note", pk, score=1)
        update = await peer.until_row(id=pk, score=1)
        assert update.data["old_record"]["score"] is None
        world.orm.delete("note", pk)
        gone = await peer.until(
            lambda f: f.event == "postgres_changes" and f.data["type"] == "DELETE"
        )
        assert "record" not in gone.data and gone.data["old_record"]["id"] == pk
        seqs = [frame.data["seq"] for frame in (frame, update, gone)]
        assert reply["seq"] < seqs[0] < seqs[1] < seqs[2]


async def test_a_row_out_of_sight_before_shows_no_old_values(world: World) -> None:
    ada, bob = someone(world), someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("handover", ALL, token=token(bob))
        pk = world.orm.note(owner=ada, title="Ada's secret")
        world.orm.change("note", pk, owner=bob, title="Bob's now")
        update = await peer.until_row(title="Bob's now")
        assert update.data["type"] == "UPDATE"
        assert "Ada's secret" not in update.text
        world.orm.change("note", pk, owner=ada, title="Ada's again")
        world.orm.note(owner=bob, title="end")
        await peer.until_row(title="end")
        assert "Ada's again" not in "".join(frame.text for frame in peer.frames)


async def test_nobody_hears_of_a_row_they_could_not_see_going_away(world: World) -> None:
    ada, bob = someone(world), someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("deletes", ALL, token=token(bob))
        pk = world.orm.note(owner=ada, title="hers")
        world.orm.delete("note", pk)
        world.orm.note(owner=bob, title="end")
        await peer.until_row(title="end")
        assert len(peer.changes()) == 1


async def test_one_change_comes_once_with_the_ids_of_every_binding_it_matches(
    world: World,
) -> None:
    me = someone(world)
    bindings = [ALL, {**ALL, "filter": "score=gt.1"}, {**ALL, "event": "DELETE"}]
    async with await RawClient.open(world.server) as peer:
        ref = await peer.join("merged", *bindings, token=token(me))
        reply = (await peer.reply(ref)).payload["response"]["postgres_changes"]
        ids = [binding["id"] for binding in reply]
        world.orm.note(owner=me, title="both", score=2)
        world.orm.note(owner=me, title="one", score=1)
        await peer.until_row(title="one")
        heard = [(f.data["record"]["title"], sorted(f.payload["ids"])) for f in peer.changes()]
        assert heard == [("both", sorted(ids[:2])), ("one", ids[:1])]


async def test_rolled_back_writes_are_never_heard_and_take_no_number(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("atomic", ALL, token=token(me))
        world.orm.note(owner=me, title="first")
        world.orm.regretted_note(owner=me, title="regretted")
        world.orm.note(owner=me, title="second")
        await peer.until_row(title="second")
        first, second = peer.changes()
        assert second.data["seq"] == first.data["seq"] + 1


async def test_writers_that_know_nothing_of_django_are_heard(world: World) -> None:
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("foreign", ALL, token=token(me))
        world.orm.many("note", [{"owner_id": me, "title": f"bulk {n}"} for n in range(3)])
        foreign = sqlite3.connect(world.server.database, timeout=30)
        with foreign:
            foreign.execute(
                "UPDATE zoo_note SET body = 'raw' WHERE owner_id = ? AND title LIKE 'bulk%'", [me]
            )
            foreign.execute("DELETE FROM zoo_note WHERE owner_id = ?", [me])
        foreign.close()
        world.orm.note(owner=me, title="end")
        await peer.until_row(title="end")
        types = [frame.data["type"] for frame in peer.changes()]
        assert types == ["INSERT"] * 3 + ["UPDATE"] * 3 + ["DELETE"] * 3 + ["INSERT"]


async def test_a_policy_changed_while_listening_holds_from_its_place_on(fresh: Any) -> None:
    world = fresh()
    me = someone(world)
    async with await RawClient.open(world.server) as peer:
        await peer.join("policies", ALL, token=token(me))
        world.orm.note(title="hidden", score=1)
        world.orm.note(owner=me, title="fence")
        await peer.until_row(title="fence")
        world.orm.policy("scores", {"score__gte": 1})
        world.orm.note(title="seen", score=1)
        await peer.until_row(title="seen")
        world.orm.policy("only small", {"score__lt": 5}, mode="restrictive")
        world.orm.note(title="too big", score=9)
        world.orm.note(owner=me, title="no score")
        world.orm.note(title="small", score=2)
        await peer.until_row(title="small")
        world.orm.change_policy("only small", enabled=False)
        world.orm.note(title="big again", score=9)
        await peer.until_row(title="big again")
        titles = [frame.data["record"]["title"] for frame in peer.changes()]
        assert titles == ["fence", "seen", "small", "big again"]


async def test_membership_decides_row_by_row_from_its_place_on(fresh: Any) -> None:
    world = fresh()
    ada, bob = someone(world), someone(world)
    team = world.orm.create("team", name="a team")
    members = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    world.orm.policy("team notes", {"team__in": members})
    async with (
        await RawClient.open(world.server) as peer,
        await RawClient.open(world.server) as other,
    ):
        await peer.join("team", ALL, token=token(ada))
        await other.join("team", ALL, token=token(bob))
        world.orm.note(title="before", team_id=team)
        world.orm.note(title="fence", is_public=True)
        await peer.until_row(title="fence")
        membership = world.orm.create("member", user_id=ada, team_id=team)
        world.orm.note(title="within", team_id=team)
        await peer.until_row(title="within")
        world.orm.delete("member", membership)
        world.orm.note(title="after", team_id=team)
        world.orm.note(title="end", is_public=True)
        await peer.until_row(title="end")
        await other.until_row(title="end")
        heard = [[f.data["record"]["title"] for f in one.changes()] for one in (peer, other)]
        assert heard == [["fence", "within", "end"], ["fence", "end"]]


async def test_a_deactivated_user_hears_nothing_from_that_place_on(world: World) -> None:
    me = someone(world)
    async with (
        await RawClient.open(world.server) as peer,
        await RawClient.open(world.server) as witness,
    ):
        await peer.join("leaving", ALL, token=token(me))
        await witness.join("leaving", ALL)
        world.orm.note(owner=me, title="still")
        await peer.until_row(title="still")
        world.orm.change_user(me, is_active=False)
        world.orm.note(owner=me, title="secret by now")
        world.orm.note(title="end", is_public=True)
        await witness.until_row(title="end")
        # An inactive user's token is refused, also while it is in use.
        assert await peer.until_closed() == 4401
        assert "secret by now" not in "".join(frame.text for frame in peer.frames)
        refused = await witness.start_join("again", ALL, token=token(me))
        assert (await witness.reply(refused)).payload["status"] == "error"


def test_no_token_came_into_the_log(world: World) -> None:
    """Last in this module: everything above went through this server."""
    assert "eyJ" not in world.server.log
    assert "Traceback" not in world.server.log
