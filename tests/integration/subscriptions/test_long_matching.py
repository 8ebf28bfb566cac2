"""A long look through predicates that no value finds stops nobody, and events keep their order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.db import connections

from auth_rls import Subject
from realtime.dispatcher.dispatcher import Dispatcher
from realtime.event_log import sequencer
from realtime.event_log.batch import Batch
from realtime.subscriptions.rebinding import Rhythm
from realtime.subscriptions.request import Request
from realtime.util.database_threads import close_connections
from realtime.wal.head import read_head
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, bindings
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal"), pytest.mark.slow]


async def test_other_tasks_run_while_thousands_are_looked_at_and_events_keep_their_order() -> None:
    # Other tasks run after every step.
    dispatcher = Dispatcher("default", 1_000, rhythm=Rhythm(slice_seconds=0.0))
    await dispatcher.start()
    try:
        subscribers = [FakeSubscriber(str(number)) for number in range(2_000)]
        for number, subscriber in enumerate(subscribers):
            asked = bindings(filter=f"score=neq.{number + 10}")
            await dispatcher.subscriptions.add(subscriber, Request(Subject.service(), asked))
        turns = {"taken": 0}
        early: list[int] = []
        late = FakeSubscriber("late")

        async def other() -> None:
            while True:
                before = dispatcher.log.seq
                await asyncio.sleep(0)
                turns["taken"] += dispatcher.log.seq == before != began
                named = dispatcher.position.seq
                if any(len(subscriber.frames) < named - began for subscriber in subscribers):
                    early.append(named)

        began = dispatcher.position.seq
        for number in range(3):
            await db(Note.objects.create, title=str(number), score=number)
        head = await db(_number)
        beating = asyncio.create_task(other())
        dispatcher.receive(Batch(dispatcher.position.epoch, head, [], []))
        await auntil(lambda: dispatcher.log.seq > began)
        # In the middle of an event: it comes after that one.
        answer = await dispatcher.subscriptions.add(late, Request(Subject.service(), bindings()))
        await auntil(lambda: len(subscribers[-1].frames) == 3)
        beating.cancel()
        # Some for each of the events, none of which is done in one go.
        assert turns["taken"] > 3
        # Who resumed at a position that is named too early would never get the event.
        assert early == []
        assert all(_titles(subscriber) == ["0", "1", "2"] for subscriber in subscribers)
        assert _seqs(late) == [seq for seq in _seqs(subscribers[0]) if seq > answer.at.seq]
    finally:
        await dispatcher.stop()
        await close_connections()


def _number() -> int:
    sequencer.number(connections["default"], 1_000)
    return read_head(connections["default"]).seq


def _data(subscriber: FakeSubscriber) -> list[Any]:
    return [json.loads(frame)[4]["data"] for frame in subscriber.frames]


def _titles(subscriber: FakeSubscriber) -> list[str]:
    return [data["record"]["title"] for data in _data(subscriber)]


def _seqs(subscriber: FakeSubscriber) -> list[int]:
    return [data["seq"] for data in _data(subscriber)]
