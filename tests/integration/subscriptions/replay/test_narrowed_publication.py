"""Of an old entry subscribers are shown no more than what is published now, whatever was published
when it was captured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from django.db import connection

from auth_rls import Subject
from realtime import publish
from realtime.event_log import sequencer
from realtime.event_log.table import read_rows
from realtime.models import WalEntry, WalRelation
from realtime.subscriptions.request import Request
from realtime.wal import published, triggers
from tests.support.captured_models import recorded
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings
from tests.support.waiting import auntil
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

EVERY = tuple(field.column for field in Note._meta.concrete_fields)
LIVE = pytest.mark.parametrize("live", [False, True], ids=["plain", "live"])


@pytest.fixture(autouse=True)
def declared(transactional_db: None) -> Iterator[None]:
    kept = dict(published.declarations)
    yield
    published.declarations.clear()
    published.declarations.update(kept)
    triggers.reconcile()


def deployed(**options: Any) -> None:
    """The next version of the project, which publishes notes like this."""
    publish(Note, **options)
    triggers.reconcile()


def history() -> None:
    """A note that comes, changes twice and goes; the second change is one of its text alone."""
    note = Note.objects.create(title="a", body="secret 1", score=1)
    Note.objects.update(title="b")
    Note.objects.update(body="secret 2")
    note.delete()
    sequencer.number(connection)


async def frames(since: int, **binding: Any) -> list[dict[str, Any]]:
    """What a client that resumes is sent by a server that has just started."""
    server = Server()
    await server.start()
    subscriber = await server.resumed(since, **binding)
    assert "resync" not in subscriber.notices
    return [json.loads(frame)[4]["data"] for frame in subscriber.frames]


def cells(frame: dict[str, Any]) -> set[str]:
    """Every column that a frame names."""
    images = (frame.get("record") or {}, frame.get("old_record") or {})
    return {column["name"] for column in frame["columns"]}.union(*images)


@LIVE
@pytest.mark.parametrize(
    "options", [{"exclude": ["body"]}, {"columns": ["title"]}], ids=["exclude", "columns"]
)
async def test_a_column_that_is_not_published_any_more_is_in_no_frame(
    options: dict[str, Any], live: bool
) -> None:
    await db(history)
    before = await frames(0, live=live)
    assert [frame["type"] for frame in before] == ["INSERT", "UPDATE", "UPDATE", "DELETE"]
    assert all("body" in cells(frame) for frame in before)
    await db(lambda: deployed(**options))
    after = await frames(0, live=live)
    # An update of what is not shown is not told either.
    assert [frame["type"] for frame in after] == ["INSERT", "UPDATE", "DELETE"]
    assert all("body" not in cells(frame) for frame in after)
    assert after[1]["record"]["title"] == "b" and after[1]["old_record"]["title"] == "a"
    assert [frame["seq"] for frame in after] == [before[place]["seq"] for place in (0, 1, 3)]


async def test_a_column_that_only_a_policy_reads_is_hidden_in_old_entries_too(
    granted: Any,
) -> None:
    await db(lambda: granted("view_note", using={"body__contains": "secret"}))
    await db(history)
    await db(lambda: deployed(exclude=["body"]))
    server = Server()
    await server.start()
    subscriber = await server.resumed(0, Subject.anonymous())
    found = [json.loads(frame)[4]["data"] for frame in subscriber.frames]
    # The policy still reads it.
    assert [frame["type"] for frame in found] == ["INSERT", "UPDATE", "DELETE"]
    assert all("body" not in cells(frame) for frame in found)


async def test_neither_a_filter_nor_a_selection_names_what_is_not_published_any_more() -> None:
    await db(history)
    await db(lambda: deployed(exclude=["body"]))
    server = Server()
    await server.start()
    subscriber = FakeSubscriber()
    asked = bindings(since=0, filter="body=like.*secret*")
    done = await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
    assert "invalid column for filter body" in str(done.problems[0])
    assert subscriber.frames == []
    assert all("body" not in cells(frame) for frame in await frames(0, select=["body", "title"]))


async def test_of_a_model_that_is_not_published_any_more_nothing_comes() -> None:
    await db(history)
    await db(lambda: (Team.objects.create(name="t"), sequencer.number(connection)))
    del published.declarations[Note._meta.label_lower]
    await db(triggers.reconcile)
    assert {frame["table"] for frame in await frames(0, table="*")} == {"zoo_team"}


async def test_what_comes_live_of_triggers_of_the_version_before_is_narrowed() -> None:
    server = Server()
    await server.start()
    subscriber = FakeSubscriber()
    # The triggers stay as the version before made them.
    publish(Note, exclude=["body"])
    await server.subscriptions.add(subscriber, Request(Subject.service(), bindings()))
    await db(history)
    await server.feed()
    # In this order: insert, update of the title, delete.
    assert len(subscriber.frames) == 3
    events = server.log.since(0) or ()
    assert all("body" not in {c.name for c in event.relation.visible} for event in events)


async def test_a_version_before_may_go_on_to_publish_more_on_the_bus() -> None:
    """A batch has the relations as they are stored, and each process narrows them by its own
    code."""
    await db(history)
    publish(Note, exclude=["body"])
    server = Server()
    await server.start()
    relations = await db(lambda: [recorded(row.pk) for row in WalRelation.objects.all()])
    server.reader.learn(relations)
    rows = await db(lambda: read_rows("default", 0, 100))
    found = server.reader.events(rows)
    assert found and all("body" not in {c.name for c in e.relation.visible} for e in found)


def other_key() -> None:
    """As if the table had had another key when its entries were captured."""
    stored = WalRelation.objects.get(table_name="zoo_note")
    relation = msgspec.structs.replace(recorded(stored.pk), id="f" * 16, key=("body",))
    definition = msgspec.json.encode(relation).decode()
    WalRelation.objects.create(
        id=relation.id, schema_name="public", table_name="zoo_note", definition=definition
    )
    WalEntry.objects.filter(relation_id=stored.id).update(relation_id=relation.id)


@LIVE
async def test_changes_that_name_rows_by_another_key_are_told_as_resync(live: bool) -> None:
    server = Server()
    await server.start()
    subscriber = FakeSubscriber()
    asked = bindings(live=live, snapshot=True) if live else bindings()
    await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
    await auntil(lambda: not server.channels.replaying(subscriber))
    await db(history)
    await db(other_key)
    await db(lambda: deployed(exclude=["body"]))
    await server.feed()
    await auntil(lambda: not server.channels.replaying(subscriber))
    assert "secret" not in "".join(subscriber.frames)
    assert any(notice.startswith(("resync", "snapshot")) for notice in subscriber.notices[-2:])
    resumed = await server.resumed(0)
    assert resumed.notices[0] == "resync" and resumed.frames == []


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_was_published_before_no_more_is_shown_than_now(seed: int) -> None:
    random = Random(seed)

    def some() -> list[str]:
        return random.sample(EVERY[1:], random.randrange(1, len(EVERY)))

    visible: dict[int, set[str]] = {}
    for _ in range(3):
        columns = some()
        await db(lambda columns=columns: deployed(columns=columns))
        known = len(visible)
        await db(history)
        count = await db(WalEntry.objects.count)
        visible |= {seq: {"id", *columns} for seq in range(known + 1, count + 1)}
    now = some()
    await db(lambda: deployed(columns=now))
    for live in (False, True):
        for frame in await frames(0, live=live):
            assert cells(frame) <= {"id", *now} & visible[frame["seq"]]
