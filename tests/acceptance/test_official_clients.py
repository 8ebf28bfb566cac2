"""The official JavaScript clients, unmodified, against a real server: the changes that they get.

Absence is proved by order: a change that may be seen is written after the one that may not, and
when the second has come, the first never will.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.support.node_client import LIBRARIES, Node
from tests.acceptance.support.server import SERVICE_KEY
from tests.acceptance.support.worlds import ALL, World, someone
from tests.support.tokens import token


async def write_and_watch_a_life(world: World, node: Node, library: str, vsn: str) -> None:
    me = someone(world)
    await node.open(world.server, library=library, vsn=vsn, token=token(me))
    await node.subscribe("lives", ALL)
    pk = world.orm.note(owner=me, title="born", score=1)
    world.orm.change("note", pk, title="grown", score=None)
    world.orm.delete("note", pk)
    gone = await node.until(
        lambda e: e["event"] == "change" and e["payload"]["eventType"] == "DELETE"
    )
    first, second, third = [event["payload"] for event in node.changes("lives")]
    assert [first["eventType"], second["eventType"], third["eventType"]] == [
        "INSERT",
        "UPDATE",
        "DELETE",
    ]
    assert first["new"]["title"] == "born" and first["new"]["owner_id"] == me
    assert first["old"] == {} and third["new"] == {}
    assert second["new"]["title"] == "grown" and second["new"]["score"] is None
    assert second["old"]["title"] == "born" and second["old"]["score"] == 1
    assert third == gone["payload"] and third["old"]["id"] == pk
    assert (first["schema"], first["table"], first["errors"]) == ("public", "zoo_note", None)
    moments = [payload["commit_timestamp"] for payload in (first, second, third)]
    assert moments == sorted(set(moments))


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES)
async def test_a_client_hears_the_whole_life_of_its_row(
    world: World, node: Node, library: str, vsn: str
) -> None:
    await write_and_watch_a_life(world, node, library, vsn)


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES[1::2])
async def test_it_does_so_on_uvicorn_too(
    uvicorn_world: World, node: Node, library: str, vsn: str
) -> None:
    await write_and_watch_a_life(uvicorn_world, node, library, vsn)


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES)
async def test_it_does_so_by_the_fast_path_too(
    fanout_world: World, node: Node, library: str, vsn: str
) -> None:
    await write_and_watch_a_life(fanout_world, node, library, vsn)


@pytest.mark.parametrize(("library", "vsn"), LIBRARIES)
async def test_each_client_hears_only_the_rows_it_may_see(
    world: World, node: Node, library: str, vsn: str
) -> None:
    ada, bob = someone(world), someone(world)
    await node.open(world.server, "ada", library=library, vsn=vsn, token=token(ada))
    await node.open(world.server, "bob", library=library, vsn=vsn, token=token(bob))
    await node.open(world.server, "nobody", library=library, vsn=vsn)
    await node.open(world.server, "service", library=library, vsn=vsn, key=SERVICE_KEY)
    everyone = ("ada", "bob", "nobody", "service")
    for client in everyone:
        await node.subscribe("notes", ALL, client=client)
    mine = world.orm.note(owner=ada, title="Ada's")
    world.orm.change("note", mine, title="Ada's, improved")
    world.orm.note(owner=bob, title="Bob's")
    world.orm.note(title="nobody's")
    world.orm.regretted_note(owner=ada, title="rolled back", is_public=True)
    world.orm.delete("note", mine)
    world.orm.note(owner=bob, title="everybody's", is_public=True)
    for client in everyone:
        await node.change("notes", client=client, title="everybody's")
    heard = {
        client: [
            event["payload"]["new"].get("title", "gone") for event in node.changes("notes", client)
        ]
        for client in everyone
    }
    assert heard == {
        "ada": ["Ada's", "Ada's, improved", "gone", "everybody's"],
        "bob": ["Bob's", "everybody's"],
        "nobody": ["everybody's"],
        "service": ["Ada's", "Ada's, improved", "Bob's", "nobody's", "gone", "everybody's"],
    }


FILTERS = {
    "score=eq.5": [5],
    "score=neq.5": [1, 9],
    "score=gt.4": [5, 9],
    "score=gte.5": [5, 9],
    "score=lt.5": [1],
    "score=lte.5": [1, 5],
    "score=in.(1,9)": [1, 9],
    "score=not.in.(1,9)": [5],
    "score=is.null": [None],
    "score=not.is.null": [1, 5, 9],
    "title=like.row%9%": [9],
    "title=ilike.ROW%5%": [5],
    'title=eq."row, (1)"': [1],
    "score=gt.1,score=lt.9": [5],
    "is_public=is.false": [1, 5, 9, None],
}


async def test_filters_choose_rows_as_the_client_writes_them(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    bindings = [{**ALL, "filter": text} for text in FILTERS]
    await node.subscribe("filtered", *bindings, ALL)
    scores = [1, 5, 9, None]
    world.orm.many("note", [{"owner_id": me, "title": f"row, ({n})", "score": n} for n in scores])
    world.orm.note(owner=me, title="the end", is_public=True, score=-1)
    await node.change("filtered", title="the end")
    heard: dict[int, list[Any]] = {}
    for event in node.changes("filtered"):
        if event["payload"]["new"]["title"] != "the end":
            heard.setdefault(event["binding"], []).append(event["payload"]["new"]["score"])
    expected = dict(enumerate(FILTERS.values()))
    assert heard == {**expected, len(FILTERS): scores}


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_a_binding_fires_for_its_own_event_only(world: World, node: Node, vsn: str) -> None:
    me = someone(world)
    await node.open(world.server, vsn=vsn, token=token(me))
    names = ["INSERT", "UPDATE", "DELETE", "*"]
    await node.subscribe("events", *[{**ALL, "event": name} for name in names])
    pk = world.orm.note(owner=me, title="one")
    world.orm.change("note", pk, title="two")
    world.orm.delete("note", pk)
    await node.until(
        lambda e: (
            e["event"] == "change" and e["binding"] == 3 and e["payload"]["eventType"] == "DELETE"
        )
    )
    heard = sorted((e["binding"], e["payload"]["eventType"]) for e in node.changes("events"))
    assert heard == [
        (0, "INSERT"),
        (1, "UPDATE"),
        (2, "DELETE"),
        (3, "DELETE"),
        (3, "INSERT"),
        (3, "UPDATE"),
    ]


async def test_a_select_brings_those_columns_and_the_key(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    await node.subscribe("narrow", {**ALL, "select": ["title", "score"]})
    pk = world.orm.note(owner=me, title="short", body="long", score=3)
    payload = await node.change("narrow", title="short")
    assert payload["new"] == {"id": pk, "title": "short", "score": 3}


async def test_values_arrive_as_javascript_expects_them(world: World, node: Node) -> None:
    await node.open(world.server)
    await node.subscribe("values", {**ALL, "table": "zoo_specimen"})
    values = {
        "boolean": True,
        "small": -3,
        "big": 9007199254740991,
        "real": 2.5,
        "decimal": "12.5",
        "char": 'it\'s "quoted", 日本 \U0001f600\n',
        "date": "2024-02-29",
        "time": "09:32:55",
        "moment": "2025-11-03T09:32:55+00:00",
        "uuid": "6f1d5f2e-0e0a-4a52-9b0a-0d8a0e5c2c11",
        "json": {"a": [1, None, {"b": "c"}]},
        "inet": "10.0.0.1",
        "renamed": 7,
    }
    pk = world.orm.create("specimen", **values)
    row = (await node.change("values", id=pk))["new"]
    for name in ("boolean", "small", "big", "real", "char", "date", "time", "uuid", "json", "inet"):
        assert row[name] == values[name], name
    assert row["decimal"] == 12.5
    assert row["moment"].startswith("2025-11-03T09:32:55")
    assert row["other_name"] == 7 and "renamed" not in row
    assert row["text"] is None


async def test_several_channels_each_hear_their_own(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    await node.subscribe("high", {**ALL, "filter": "score=gte.10"})
    await node.subscribe("low", {**ALL, "filter": "score=lt.10"})
    await node.subscribe("both", ALL)
    for score in (3, 30, 4, 40):
        world.orm.note(owner=me, title="n", score=score)
    await node.change("both", score=40)
    await node.change("high", score=40)
    await node.change("low", score=4)
    heard = {
        channel: [event["payload"]["new"]["score"] for event in node.changes(channel)]
        for channel in ("high", "low", "both")
    }
    assert heard == {"high": [30, 40], "low": [3, 4], "both": [3, 30, 4, 40]}


async def test_what_is_written_after_subscribed_is_never_missed(world: World, node: Node) -> None:
    me = someone(world)
    await node.open(world.server, token=token(me))
    for round_ in range(10):
        await node.subscribe(f"at once {round_}", ALL)
        world.orm.note(owner=me, title=f"round {round_}")
    for round_ in range(10):
        await node.change(f"at once {round_}", title=f"round {round_}")


BROKEN = {
    "unknown table": ({**ALL, "table": "no_such_table"}, "Please check Realtime is enabled"),
    "unpublished table": ({**ALL, "table": "zoo_member"}, "Please check Realtime is enabled"),
    "users": ({**ALL, "table": "auth_user"}, "Please check Realtime is enabled"),
    "unknown column": ({**ALL, "filter": "colour=eq.red"}, "invalid column for filter colour"),
    "bad filter": ({**ALL, "filter": "score"}, "Error parsing `filter` params"),
    "bad select": ({**ALL, "select": ["colour"]}, "invalid column for select colour"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_binding_that_cannot_work_says_so(world: World, node: Node, name: str) -> None:
    binding, text = BROKEN[name]
    me = someone(world)
    await node.open(world.server, token=token(me))
    await node.subscribe("broken", binding, ALL)
    told = await node.until(lambda e: e["event"] == "system" and e["payload"]["status"] == "error")
    assert text in told["payload"]["message"]
    assert told["payload"]["extension"] == "postgres_changes"
    assert told["payload"]["channel"] == "broken"
    world.orm.note(owner=me, title="the other binding works")
    await node.change("broken", title="the other binding works")


def test_the_server_wrote_no_token_and_no_traceback_into_its_log(world: World) -> None:
    """Last in this module: everything above went through the same server."""
    log = world.server.log
    assert "eyJ" not in log
    assert "Traceback" not in log
