"""Snapshots: the rows as they are, then the stream, with nothing lost or doubled between."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.models import BinaryField
from django.db.models.expressions import RawSQL
from hypothesis import given
from hypothesis import strategies as st

from auth_rls import Subject
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import All, Any_, Const, Not, Predicate, Test
from realtime.event_log import sequencer
from realtime.event_log.position import Position
from realtime.event_log.ring import EventLog
from realtime.models import WalEntry
from realtime.process.hub import hub
from realtime.protocol.join import parse_join
from realtime.subscriptions import dependencies
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.known_users import KnownUsers
from realtime.subscriptions.planner import Plan
from realtime.subscriptions.replay.snapshot import SnapshotReader, SnapshotUnavailable
from realtime.subscriptions.request import Request
from realtime.wal import published, row_images, triggers
from realtime.wal.head import read_head
from tests.support.socket_client import Client, db
from tests.support.specimens import BYTES, FULL
from tests.support.tokens import token
from tests.support.vendors import on_sqlite
from tests.support.waiting import auntil
from tests.zoo.models import Note, Seat, Specimen

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wal", "closing_hub")]


async def opened(asker: str | None = None, **binding: Any) -> Client:
    """A client whose join asks for a snapshot."""
    client = await Client(**({"token": asker} if asker else {})).connect()
    binding = {"event": "*", "schema": "public", "table": "zoo_note", "snapshot": True, **binding}
    reply = await client.join(postgres_changes=[binding])
    assert reply["status"] == "ok"
    return client


async def rows_of(client: Client) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the snapshot between the messages that begin and close it; and the latter."""
    begins = await client.until(lambda f: f[3] == "system" and f[4]["extension"] == "snapshot")
    assert begins[4]["message"] == "snapshot begins"
    rows = []
    while True:
        frame = await client.until(
            lambda f: f[3] == "postgres_changes" or f[4].get("extension") == "snapshot"
        )
        if frame[3] == "system":
            return rows, frame[4]
        rows.append(frame[4]["data"])


async def titles(client: Client) -> list[str]:
    rows, _ = await rows_of(client)
    return sorted(data["record"]["title"] for data in rows)


async def test_the_rows_that_a_limit_leaves_out_take_no_memory(granted: Any) -> None:
    await db(granted, "view_note", using={"is_public": True})
    size, count = 100_000, 300
    await db(
        Note.objects.bulk_create,
        [Note(title=str(n), body="x" * size, is_public=True) for n in range(count)],
    )
    client = await opened(snapshot={"limit": 1})
    await rows_of(client)
    tracemalloc.start()
    try:
        other = await opened(snapshot={"limit": 1})
        rows, _ = await rows_of(other)
        assert len(rows) == 1
        assert tracemalloc.get_traced_memory()[1] < size * count / 2
    finally:
        tracemalloc.stop()


async def test_its_beginning_names_the_primary_key_which_each_row_has(granted: Any) -> None:
    await db(granted, "view_seat", using=True)
    await db(Seat.objects.create, hall=1, number=7)
    client = await opened(table="zoo_seat", select=["taken"])
    begins = await client.until(lambda f: f[3] == "system" and f[4]["extension"] == "snapshot")
    key = {"schema": "public", "table": "zoo_seat", "columns": ["hall", "number"]}
    assert begins[4]["keys"] == [key]
    row = await client.until(lambda f: f[3] == "postgres_changes")
    assert row[4]["data"]["record"] == {"hall": 1, "number": 7, "taken": False}


async def test_its_beginning_names_no_table_that_the_client_has_not_named(granted: Any) -> None:
    await db(granted, "view_note", using=True)
    client = await opened(table="*")
    begins = await client.until(lambda f: f[3] == "system" and f[4]["extension"] == "snapshot")
    assert "keys" not in begins[4]


async def test_the_rows_come_as_inserts_then_a_word_that_these_were_all_then_changes(
    granted: Any,
) -> None:
    await db(granted, "view_note", using={"is_public": True})
    for number in range(5):
        await db(Note.objects.create, title=str(number), is_public=number != 2, score=number)
    client = await opened(filter="score=gte.1")
    rows, closing = await rows_of(client)
    assert [data["record"]["title"] for data in rows] == ["1", "3", "4"]
    assert {(data["type"], data["snapshot"], data["seq"]) for data in rows} == {
        ("INSERT", True, closing["seq"])
    }
    assert closing == {
        "status": "ok",
        "extension": "snapshot",
        "message": "snapshot complete",
        "channel": "room",
        "seq": closing["seq"],
        "count": 3,
    }
    await db(Note.objects.filter(title="3").update, body="x")
    frame = await client.until(lambda f: f[3] == "postgres_changes")
    change = frame[4]["data"]
    assert (change["type"], change["record"]["body"]) == ("UPDATE", "x")
    assert "snapshot" not in change
    assert change["seq"] > closing["seq"]
    await client.close()


async def test_a_table_larger_than_a_page_comes_whole_and_each_row_once(granted: Any) -> None:
    await db(granted, "view_note")
    await db(Note.objects.bulk_create, [Note(title=str(n)) for n in range(1_700)])
    client = await opened()
    rows, closing = await rows_of(client)
    assert sorted(int(data["record"]["title"]) for data in rows) == list(range(1_700))
    assert closing["count"] == 1_700
    await client.close()


@pytest.mark.parametrize(
    ("asked", "limit", "count", "message"),
    [
        ({"limit": 2}, 10, 2, "snapshot truncated"),
        ({"limit": 4}, 10, 4, "snapshot complete"),
        (True, 3, 3, "snapshot truncated"),
        ({"limit": 100}, 3, 3, "snapshot truncated"),
        (True, None, 4, "snapshot complete"),
    ],
)
async def test_a_limit_cuts_and_says_so(
    granted: Any, settings: Any, asked: Any, limit: int | None, count: int, message: str
) -> None:
    settings.REALTIME = {"LIMITS": {"snapshot_rows": limit}}
    await db(granted, "view_note")
    await db(Note.objects.bulk_create, [Note(title=str(n)) for n in range(4)])
    client = await opened(snapshot=asked)
    rows, closing = await rows_of(client)
    assert (len(rows), closing["count"], closing["message"]) == (count, count, message)
    await client.close()


@pytest.mark.parametrize(
    ("filter_", "wanted"),
    [
        ("title=match.^a.$", ["ab", "ac"]),
        ("title=imatch.^A.$", ["ab", "ac"]),
        ("title=not.match.b", ["ac", "d"]),
        ("title=match.a,score=gt.1", ["ac"]),
        ("title=like.a%", ["ab", "ac"]),
        ("score=is.null", ["d"]),
    ],
)
async def test_a_filter_decides_as_it_does_in_the_stream_whatever_sql_can_say(
    granted: Any, filter_: str, wanted: list[str]
) -> None:
    await db(granted, "view_note")
    for title, score in (("ab", 1), ("ac", 2), ("d", None)):
        await db(Note.objects.create, title=title, score=score)
    client = await opened(filter=filter_)
    assert await titles(client) == wanted
    await client.close()


async def test_a_select_and_what_is_hidden_cut_the_rows_as_they_cut_changes(granted: Any) -> None:
    published.publish(Note, exclude=["is_public"])
    try:
        await db(granted, "view_note", using={"is_public": True})
        await db(triggers.reconcile)
        await db(Note.objects.create, title="a", is_public=True, score=1)
        await db(Note.objects.create, title="b", is_public=False, score=1)
        client = await opened(select=["score"])
        (data,), _ = await rows_of(client)
        assert list(data["record"]) == ["id", "score"]
        await client.close()
        client = await opened()
        (data,), _ = await rows_of(client)
        assert data["record"]["title"] == "a"
        assert "is_public" not in json.dumps(data)
        await client.close()
    finally:
        published.publish(Note)
        await db(triggers.reconcile)


async def test_without_a_policy_a_snapshot_is_empty_and_says_so() -> None:
    await db(Note.objects.create, title="secret")
    client = await opened()
    rows, closing = await rows_of(client)
    assert (rows, closing["count"], closing["message"]) == ([], 0, "snapshot complete")
    await client.close()


async def test_a_binding_that_cannot_work_has_no_snapshot_and_others_have(granted: Any) -> None:
    await db(granted, "view_note")
    await db(Note.objects.create, title="a")
    client = await Client().connect()
    broken = {"event": "*", "schema": "public", "table": "zoo_note", "filter": "no=eq.1"}
    ordinary = {"event": "UPDATE", "schema": "public", "table": "zoo_note"}
    await client.join(
        postgres_changes=[
            {**broken, "snapshot": True},
            {**ordinary, "snapshot": True},
            {**ordinary, "event": "INSERT", "snapshot": True},
        ]
    )
    rows, closing = await rows_of(client)
    assert [data["record"]["title"] for data in rows] == ["a"]
    assert closing["count"] == 1
    errors = [f for f in client.unread if f[3] == "system" and f[4]["status"] == "error"]
    assert len(errors) == 2
    await client.close()


async def test_a_cursor_wins_over_a_snapshot_while_it_is_kept(granted: Any) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    start = await client.listen()
    await db(Note.objects.create, title="missed")
    missed = await client.change()
    await client.close()
    again = await opened(since=start["seq"])
    frame = await again.until(lambda f: f[3] == "postgres_changes")
    assert frame[4]["data"] == missed
    told = await again.until(lambda f: f[3] == "system" and f[4]["extension"] != "postgres_changes")
    assert told[4]["message"] == "caught up"
    await again.close()
    lost = await opened(since="another-epoch:7")
    rows, _ = await rows_of(lost)
    assert [data["record"]["title"] for data in rows] == ["missed"]
    assert all(frame[4].get("message") != "resync required" for frame in lost.unread)
    await lost.close()


async def test_a_snapshot_stands_after_what_other_bindings_of_the_channel_replay(
    granted: Any,
) -> None:
    await db(granted, "view_note")
    client = await Client().connect()
    start = await client.listen()
    for title in "abc":
        await db(Note.objects.create, title=title)
    for _ in "abc":
        await client.change()
    await client.close()
    again = await Client().connect()
    table = {"event": "*", "schema": "public", "table": "zoo_note"}
    reply = await again.join(
        postgres_changes=[{**table, "snapshot": True}, {**table, "since": start["seq"]}]
    )
    first, second = (binding["id"] for binding in reply["response"]["postgres_changes"])
    seen = []
    for _ in range(6):
        frame = await again.until(lambda f: f[3] == "postgres_changes")
        seen.append((frame[4]["ids"], frame[4]["data"]["seq"]))
    assert [ids for ids, _ in seen] == [[second]] * 3 + [[first]] * 3
    assert [seq for _, seq in seen] == sorted(seq for _, seq in seen)
    await db(Note.objects.create, title="d")
    frame = await again.until(lambda f: f[3] == "postgres_changes")
    assert frame[4]["ids"] == sorted([first, second])
    await again.close()


# --- one database snapshot ----------------------------------------------------------------------


def service(*bindings: dict[str, Any]) -> Request:
    payload = {"config": {"postgres_changes": list(bindings)}}
    return Request(Subject.service(), parse_join(payload).bindings)


async def unknown(request: Request) -> tuple[Request, Plan]:
    raise AssertionError("a process that does not follow the log knows no plan")


async def picture(at: Position, request: Request) -> list[str]:
    """The titles of the notes as they stood at this place."""
    users = KnownUsers("default", EventLog(10))
    reader = SnapshotReader("default", AccessWatch("default"), users, unknown)
    wanted = {binding.id: None for binding in request.bindings}
    found = await reader.snapshot(request, at, wanted)
    return sorted(json.loads(row.raw)["title"] for _, rows in found.sets for _, row in rows)


NOTES = service({"event": "*", "schema": "public", "table": "zoo_note"})


def numbered() -> Position:
    sequencer.number(connections["default"])
    head = read_head(connections["default"])
    return Position(head.epoch, head.seq)


async def test_what_came_after_the_place_is_undone_numbered_or_not() -> None:
    kept, changed, gone = [await db(Note.objects.create, title=title) for title in "abc"]
    at = await db(numbered)
    await db(Note.objects.filter(pk=changed.pk).update, title="B")
    await db(gone.delete)
    later = await db(numbered)
    await db(Note.objects.filter(pk=changed.pk).update, title="BB")
    await db(Note.objects.filter(pk=changed.pk).update, id=1_000)
    await db(Note.objects.create, pk=gone.pk, title="another")
    await db(Note.objects.create, title="new")
    await db(kept.delete)
    assert await picture(at, NOTES) == ["a", "b", "c"]
    assert await picture(later, NOTES) == ["B", "a"]
    assert await picture(await db(numbered), NOTES) == ["BB", "another", "new"]


async def test_a_place_that_the_log_does_not_show_is_unclear(granted: Any) -> None:
    at = await db(numbered)
    with pytest.raises(SnapshotUnavailable):
        await picture(Position("another", at.seq), NOTES)
    with pytest.raises(SnapshotUnavailable):
        await picture(Position(at.epoch, at.seq + 1), NOTES)
    await db(Note.objects.create, title="a")
    await db(WalEntry.objects.update, op="TRUNCATE", old=None, new=None)
    with pytest.raises(SnapshotUnavailable, match="TRUNCATE"):
        await picture(at, NOTES)
    assert await picture(await db(numbered), NOTES) == ["a"]


async def test_rows_are_not_newer_than_the_permissions_they_are_shown_under(granted: Any) -> None:
    policy = await db(granted, "view_note", using={"title": "a"})
    for title in "ab":
        await db(Note.objects.create, title=title)
    at = await db(numbered)
    asked = Request(Subject.anonymous(), NOTES.bindings)
    assert await picture(at, asked) == ["a"]
    # Not numbered, so that no server has heard of it yet.
    await db(type(policy).objects.filter(pk=policy.pk).update, using={"title": "b"})
    assert await picture(at, asked) == ["b"]


async def test_what_was_captured_without_a_column_that_now_decides_is_unclear_until_it_is_past(
    granted: Any,
) -> None:
    published.publish(Note, exclude=["is_public"])
    try:
        await db(triggers.reconcile)
        at = await db(numbered)
        note = await db(Note.objects.create, title="a", is_public=True)
        await db(Note.objects.filter(pk=note.pk).update, title="b")
        middle = await db(numbered)
        await db(Note.objects.filter(pk=note.pk).update, title="c")
        await db(granted, "view_note", using={"is_public": True})
        asked = Request(Subject.anonymous(), NOTES.bindings)
        # At the first place the row was not there; at the second nobody knows if it was seen.
        assert await picture(at, asked) == []
        with pytest.raises(SnapshotUnavailable, match="not captured yet"):
            await picture(middle, asked)
        assert await picture(await db(numbered), asked) == ["c"]
    finally:
        published.publish(Note)
        await db(triggers.reconcile)


@on_sqlite
async def test_a_snapshot_that_is_being_read_holds_up_no_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await db(Note.objects.create, title="before")
    at = await db(numbered)
    reading, written = threading.Event(), threading.Event()
    expression = row_images.expression

    def slow(*args: Any) -> str:
        reading.set()
        assert written.wait(15)
        return expression(*args)

    monkeypatch.setattr(row_images, "expression", slow)
    task = asyncio.create_task(picture(at, NOTES))
    await auntil(reading.is_set)
    await asyncio.to_thread(_write_and_close)
    written.set()
    assert await task == ["before"]


def _write_and_close() -> None:
    try:
        Note.objects.create(title="meanwhile")
    finally:
        connection.close()


async def test_a_row_looks_the_same_in_a_snapshot_and_in_the_stream_to_the_last_byte() -> None:
    """Whatever its type, and however odd its value."""

    def compare() -> None:
        for field, value, _ in BYTES:
            Specimen.objects.create(**{field: value})
        Specimen.objects.create(**FULL)
        entries = WalEntry.objects.filter(table_name="zoo_specimen").order_by("id")
        relation = published.relation_for(Specimen, reads=())
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            row_images.prepare(connection)
            sql = row_images.expression("default", Specimen, relation).replace("%", "%%")
            rows = Specimen.objects.order_by("pk").annotate(
                image=RawSQL(sql, [], output_field=BinaryField())
            )
            found = [bytes(image).decode() for image in rows.values_list("image", flat=True)]
            cursor.execute("ROLLBACK")
        assert found == list(entries.values_list("new", flat=True))

    await db(compare)


async def test_a_live_snapshot_of_a_user_made_inactive_meanwhile_ends_the_socket(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db(granted, "view_note", audience="authenticated")
    ada = await db(User.objects.create_user, "ada")
    await hub().ready()
    release = asyncio.Event()
    read = SnapshotReader.snapshot

    async def late(self: SnapshotReader, *args: Any) -> Any:
        await release.wait()
        return await read(self, *args)

    monkeypatch.setattr(SnapshotReader, "snapshot", late)
    client = await opened(token(ada.pk), live=True)
    await db(User.objects.filter(pk=ada.pk).update, is_active=False)
    release.set()
    assert await client.until(lambda frame: isinstance(frame, int)) == 4401


# --- which rows two verdicts differ on ----------------------------------------------------------

_leaves = st.builds(Test, st.sampled_from("ab"), st.just("exact"), st.integers(0, 2)) | st.builds(
    Test, st.sampled_from("ab"), st.just("in"), st.frozensets(st.integers(0, 2), max_size=2)
)
_predicates = st.recursive(
    _leaves | st.builds(Const, st.sampled_from([True, False, None])),
    lambda inner: (
        st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Any_, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=6,
)


@given(one=_predicates, other=_predicates, shared=_predicates, joined=st.sampled_from([All, Any_]))
def test_every_row_that_comes_or_goes_is_among_those_looked_at(
    one: Predicate, other: Predicate, shared: Predicate, joined: Any
) -> None:
    one, other = joined((one, shared)), joined((shared, other))
    looked_at = matcher(dependencies.differing(one, other))
    for row in ({"a": a, "b": b} for a in (None, 0, 1, 2) for b in (None, 0, 1, 2)):
        if (matcher(one)(row) is True) is not (matcher(other)(row) is True):
            assert looked_at(row) is True


def test_a_room_joined_is_looked_up_alone() -> None:
    public, mine = Test("public", "exact", True), Test("owner", "exact", 1)
    before = Any_((public, All((mine, Test("room", "in", frozenset({1, 2}))))))
    after = Any_((public, All((mine, Test("room", "in", frozenset({1, 2, 3}))))))
    assert dependencies.differing(before, after) == All((mine, Test("room", "exact", 3)))
