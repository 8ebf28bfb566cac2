"""The presence of a topic is what the table and the bus say together, whatever was missed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from django.db.utils import OperationalError

from realtime.event_log.position import Position
from realtime.topics.presence import tracker
from realtime.topics.presence.changes import Key, PresenceChanges, PresenceEnded, Present
from realtime.topics.presence.known import Table
from realtime.topics.presence.tracker import LookTiming, PresenceTracker
from realtime.util.database_threads import close_connections
from tests.support.subscriptions import FakeSubscriber
from tests.support.waiting import PATIENCE_SECONDS, auntil


def present(key: str, version: int = 1, private: bool = False) -> Present:
    return Present("room", private, key, version, key, b"{}")


def changes(number: int, *rows: Present, process: str = "p", seq: int = 0) -> PresenceChanges:
    epoch = "e" if seq else ""
    return PresenceChanges(process, number - 1, number, list(rows), [], epoch=epoch, seq=seq)


class Rows:
    """The table: rows of one process, and reads that end when they are let go."""

    def __init__(self) -> None:
        self.rows: list[Present] = []
        self.number: int | None = 1
        self.seq = 0
        self.reads = 0
        self.down = False
        self.go = threading.Event()
        self.go.set()

    def read(self, alias: str, topics: Collection[Key], processes: Collection[str]) -> Table:
        members = [("p", row) for row in self.rows]
        found = Table({"p": self.number, "q": 0, "here": None}, members, "e", self.seq)
        self.reads += 1
        assert self.go.wait(PATIENCE_SECONDS)
        if self.down:
            raise OperationalError("down")
        return found


@pytest.fixture
async def rows(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rows]:
    rows = Rows()
    monkeypatch.setattr(tracker, "read", rows.read)
    yield rows
    rows.go.set()
    await close_connections()


@pytest.fixture
async def presence(rows: Rows) -> AsyncIterator[PresenceTracker]:
    presence = PresenceTracker("default", "here", timing=LookTiming(0.01, 0.01))
    yield presence
    await presence.stop()


async def state(presence: PresenceTracker, private: bool = False) -> Any:
    async with presence.loaded("room", private):
        listener = FakeSubscriber("another")
        found = json.loads(presence.join(listener, "room", private))
        presence.leave(listener)
        return found


@pytest.mark.parametrize("again", [False, True], ids=["first read", "read again"])
async def test_changes_that_were_missed_while_a_topic_is_read_are_in_its_state(
    rows: Rows, presence: PresenceTracker, again: bool
) -> None:
    async with presence.loaded("room", False) if again else nullcontext():
        if again:
            presence.join(FakeSubscriber(), "room", False)
        rows.go.clear()
        if again:
            presence.reload()
        coming = asyncio.create_task(state(presence))
        await auntil(lambda: rows.reads == 1 + again, "a read that has begun")
        rows.rows.append(present("ann"))
        # As after a new epoch of the log.
        presence.reload()
        rows.go.set()
        assert list(await coming) == ["ann"]


async def test_a_message_that_comes_while_the_table_is_read_is_applied_to_what_was_read(
    rows: Rows, presence: PresenceTracker
) -> None:
    rows.rows = [present("ann")]
    rows.go.clear()
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(state(presence))
        await auntil(lambda: rows.reads, "a read that has begun")
        presence.hear(changes(1, present("ann")))
        presence.hear(changes(2, present("bob")))
        rows.go.set()
    assert set(coming.result()) == {"ann", "bob"}


async def test_who_missed_a_message_reads_the_process(
    rows: Rows, presence: PresenceTracker
) -> None:
    async with presence.loaded("room", False):
        presence.join(FakeSubscriber(), "room", False)
        rows.rows, rows.number = [present("ann"), present("bob")], 3
        presence.hear(changes(3, present("bob")))
        await auntil(lambda: rows.reads == 2, "a read of the process")
        await auntil(lambda: _names(presence) == {"ann", "bob"}, "both")


async def test_a_last_message_that_was_lost_is_found_by_looking(
    rows: Rows, presence: PresenceTracker
) -> None:
    async with presence.loaded("room", False):
        presence.join(FakeSubscriber(), "room", False)
        rows.rows, rows.number = [present("ann")], 2
        looking = asyncio.create_task(presence.run())
        await auntil(lambda: _names(presence) == {"ann"}, "the member")
        looking.cancel()


async def test_nobody_looks_while_nobody_is_shown_presence(
    rows: Rows, presence: PresenceTracker
) -> None:
    looking = asyncio.create_task(presence.run())
    presence.hear(changes(5, present("ann")))
    assert await state(presence) == {}
    reads = rows.reads
    await asyncio.sleep(0.1)
    assert rows.reads == reads
    presence.has_members = lambda: True
    await auntil(lambda: rows.reads > reads, "a look")
    looking.cancel()


async def test_the_end_of_a_process_is_looked_into_at_once(
    rows: Rows, presence: PresenceTracker
) -> None:
    async with presence.loaded("room", False):
        presence.join(FakeSubscriber(), "room", False)
        reads = rows.reads
        presence.hear(PresenceEnded("p"))
        await auntil(lambda: rows.reads > reads, "a look")


async def test_a_failed_read_is_told_to_those_who_wait_and_tried_again_for_the_others(
    rows: Rows, presence: PresenceTracker
) -> None:
    rows.down = True
    with pytest.raises(OperationalError):
        await state(presence)
    rows.down = False
    async with presence.loaded("room", False):
        presence.join(FakeSubscriber(), "room", False)
        rows.down = True
        rows.rows = [present("ann")]
        reads = rows.reads
        presence.reload()
        await auntil(lambda: rows.reads > reads + 1, "another attempt")
        rows.down = False
        await auntil(lambda: _names(presence) == {"ann"}, "the member")


async def test_own_changes_are_answered_behind_their_diff(
    rows: Rows, presence: PresenceTracker
) -> None:
    rows.number = None
    answers: list[str] = []
    async with presence.loaded("room", False):
        listener = FakeSubscriber()
        presence.join(listener, "room", False)

        def answer(name: str) -> None:
            answers.append(f"{name} after {len(listener.frames)}")

        done = [(("room", False), partial(answer, "ann")), (("else", False), partial(answer, "x"))]
        presence.wrote(changes(1, present("ann"), process="here"), done)
        # The bus brings it back.
        presence.hear(changes(1, present("ann"), process="here"))
    assert sorted(answers) == ["ann after 1", "x after 0"]
    assert len(listener.frames) == 1


async def test_on_a_private_topic_a_change_waits_until_rights_are_known_as_of_it(
    rows: Rows, presence: PresenceTracker
) -> None:
    at = Position("e", 4)
    presence.rights_at = lambda: at
    async with presence.loaded("room", True):
        listener = FakeSubscriber()
        presence.join(listener, "room", True)
        presence.hear(changes(2, present("ann", private=True), seq=5))
        # Written behind it, so that it may not come first.
        presence.hear(changes(3, present("bob", private=True)))
        presence.hear(changes(4, present("cleo", private=True), seq=6))
        assert not listener.frames
        # Each as soon as it may be sent, however many come behind it.
        at = Position("e", 5)
        presence.flush()
        assert [name for name in ("ann", "bob", "cleo") if name in str(listener.frames)] == [
            "ann",
            "bob",
        ]
        at = Position("e", 6)
        presence.flush()
        assert "cleo" in listener.frames[-1]


async def test_on_a_private_topic_what_was_read_waits_too(
    rows: Rows, presence: PresenceTracker
) -> None:
    at = Position("e", 4)
    presence.rights_at = lambda: at
    async with presence.loaded("room", True):
        listener = FakeSubscriber()
        presence.join(listener, "room", True)
        rows.rows, rows.seq = [present("ann", private=True)], 5
        reads = rows.reads
        presence.reload()
        await auntil(lambda: rows.reads > reads, "the read")
        await state(presence, True)
        assert not listener.frames
        # Another process knows an epoch that this one is still to hear of.
        presence.hear(PresenceChanges("q", 0, 1, [present("bob", 1, True)], [], False, "f", 1))
        at = Position("e", 5)
        presence.flush()
        assert not listener.frames
        at = Position("f", 1)
        presence.flush()
        assert "ann" in listener.frames[0] and "bob" in listener.frames[0]


@pytest.mark.parametrize(("number", "lost"), [(None, True), (1, True), (2, False), (3, False)])
async def test_a_table_that_lacks_own_writes_is_reported(
    presence: PresenceTracker, monkeypatch: pytest.MonkeyPatch, number: int | None, lost: bool
) -> None:
    monkeypatch.setattr(tracker, "read", lambda *_: Table({"here": number}, []))
    told: list[bool] = []
    presence.lost = partial(told.append, True)
    presence.wrote(changes(2, process="here"))
    await state(presence)
    assert bool(told) is lost


def _names(presence: PresenceTracker) -> set[str]:
    listener = FakeSubscriber("now")
    found = set(json.loads(presence.join(listener, "room", False)))
    presence.leave(listener)
    return found
