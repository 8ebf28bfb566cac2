"""What happens while a set is read or an event is matched."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.db import connections

from auth_rls import Subject
from realtime.event_log import sequencer
from realtime.event_log.position import Position
from realtime.subscriptions.request import Request
from realtime.subscriptions.set_reader import SetReader
from tests.support.live_sets import ROOMS, listening, policies, started
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Member, Note

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]


class Gate:
    """Holds up every reader of sets after the reading, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.reads = 0
        read = SetReader.read

        def late(reader: SetReader, *args: Any) -> Any:
            found = read(reader, *args)
            self.reads += 1
            self.reached.set()
            assert self.open.wait(PATIENCE_SECONDS)
            return found

        monkeypatch.setattr(SetReader, "read", late)


async def joining_held_up(
    server: Server, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> tuple[Gate, asyncio.Task[FakeSubscriber]]:
    """A join that has read its set and waits for the gate."""
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(listening(server, subject))
    await asyncio.to_thread(gate.reached.wait)
    return gate, joining


async def test_what_came_by_while_a_set_was_read_is_in_it(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    server = await started()
    gate, joining = await joining_held_up(server, ada, monkeypatch)
    await db(Member.objects.create, user=ada.user, team=team)
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    gate.open.set()
    subscriber = await joining
    assert gate.reads == 1
    await db(Note.objects.create, title="b", team=team)
    await server.feed()
    # What came before the answer to the join was nobody's.
    assert subscriber.frames == ["live"]


async def test_a_nested_set_whose_inner_one_moved_while_it_was_read_is_read_once_more(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    await db(policies, {"title__in": ROOMS})
    server = await started()
    gate, joining = await joining_held_up(server, ada, monkeypatch)
    await db(Member.objects.create, user=ada.user, team=team)
    await server.feed()
    gate.open.set()
    subscriber = await joining
    assert gate.reads == 2
    await db(Note.objects.create, title="room:team")
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_set_that_was_read_for_a_place_the_log_has_left_is_read_once_more(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    team, ada, _ = people
    server = await started()
    gate, joining = await joining_held_up(server, ada, monkeypatch)
    await db(Member.objects.create, user=ada.user, team=team)
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    await server.rebinding.restart(Position(head.epoch, head.seq))
    server.log.start(head)
    gate.open.set()
    subscriber = await joining
    await db(Note.objects.create, title="a", team=team)
    await server.feed()
    assert subscriber.frames == ["live"]


async def test_a_join_that_is_given_up_while_its_set_is_read_leaves_nothing_behind(
    people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ada, _ = people
    server = await started()
    gate, joining = await joining_held_up(server, ada, monkeypatch)
    joining.cancel()
    await asyncio.wait({joining})
    gate.open.set()
    subscriber = await listening(server, ada)
    assert len(server.subscriptions.sets) == 1
    server.channels.remove(subscriber)
    assert len(server.subscriptions.sets) == 0


async def test_who_joins_while_an_event_is_matched_gets_the_next_one_and_not_that_one(
    people: list[Any],
) -> None:
    server = await started()
    subscriber = FakeSubscriber()
    asked = bindings()
    first = await listening(server, Subject.service())
    await db(Note.objects.create, title="a")
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    (event,) = await server.reader.from_table(server.log.seq, head.seq)
    server.log.append(event)
    with server.channels.frozen():
        answer = await server.subscriptions.add(subscriber, Request(Subject.service(), asked))
        server.deliver(event)
    assert answer.at.seq == event.seq
    assert (first.frames, subscriber.frames) == (["live"], [])
    await db(Note.objects.create, title="b")
    await server.feed()
    assert (first.frames, subscriber.frames) == (["live"] * 2, ["live"])
