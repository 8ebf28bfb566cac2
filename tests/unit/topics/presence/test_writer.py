"""What a process writes of its presence: nothing that the database does stops the writer, and no
channel stays present after it has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from django.db.utils import OperationalError

from realtime.topics.presence import writer
from realtime.topics.presence.state import PresenceMeta
from realtime.topics.presence.store import PresenceRow, RowsMissing, Written
from realtime.topics.presence.tracker import PresenceTracker
from realtime.topics.presence.writer import PresenceWriter
from realtime.util.database_threads import close_connections
from tests.support.waiting import PATIENCE_SECONDS, auntil


class Table:
    """The table of presence: refuses a meta that says "bad", as a database refuses a NUL, and does
    not answer while it is `down`. A write ends when it is let go. Those that are `unanswered` pass
    and seem to fail."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        self.number = 0
        self.gone: list[int] = []
        self.unanswered = False
        self.writes = 0
        self.down_from = 1_000
        self.go = threading.Event()
        self.go.set()

    def write(
        self,
        alias: str,
        process: str,
        number: int,
        new: Collection[PresenceRow],
        changed: Collection[PresenceRow],
        gone: Collection[PresenceRow],
        most: int | None,
        whole: bool,
        passed: int,
    ) -> Written:
        self.writes += 1
        assert self.go.wait(PATIENCE_SECONDS)
        if any(row.entry.id not in self.members for row in changed):
            raise RowsMissing
        if self.number < passed and not whole:
            raise RowsMissing
        if whole:
            self.members.clear()
        if self.writes >= self.down_from:
            raise OperationalError("down")
        rows = [*new, *changed]
        if any(b"bad" in row.entry.meta for row in rows):
            raise ValueError("a value that cannot be stored")
        self.members.update((row.entry.id, row.entry.meta) for row in rows)
        for one in gone:
            self.members.pop(one.entry.id, None)
            self.gone.append(one.entry.version)
        self.number = number
        if self.unanswered:
            raise OperationalError("the connection broke")
        return Written()

    def empty(self) -> None:
        self.members.clear()
        self.number = 0


@pytest.fixture
async def table(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Table]:
    table = Table()
    monkeypatch.setattr(writer, "write", table.write)
    yield table
    table.go.set()
    await close_connections()


@pytest.fixture
async def presence(table: Table) -> AsyncIterator[PresenceWriter]:
    presence = PresenceWriter("default", "here", PresenceTracker("default"))
    presence.registered()
    running = asyncio.create_task(presence.run())
    yield presence
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def row(id_: str, meta: bytes = b'{"n":1}') -> PresenceRow:
    return PresenceRow(PresenceMeta(id_, 0, "key", meta), "room", False)


def _ignore(_: Any) -> None:
    return None


async def test_the_writer_goes_on_when_the_database_fails_after_a_refusal(
    table: Table, presence: PresenceWriter
) -> None:
    problems: list[str | None] = []
    # The rows are written together, then one by one: the first is refused, the second fails.
    table.down_from = 3
    presence.track(row("one", b'{"n":"bad"}'), problems.append)
    presence.track(row("two"), _ignore)
    await auntil(lambda: table.writes >= 3, "a write that fails")
    table.down_from = 1_000
    await auntil(lambda: set(table.members) == {"two"}, "the other row")
    presence.track(row("three"), _ignore)
    await auntil(lambda: set(table.members) == {"two", "three"}, "a later row")
    (problem,) = problems
    assert problem is not None


async def test_a_channel_that_leaves_while_its_change_is_refused_is_not_present_any_more(
    table: Table, presence: PresenceWriter
) -> None:
    presence.track(row("one"), _ignore)
    await auntil(lambda: set(table.members) == {"one"}, "the first row")
    table.go.clear()
    presence.track(row("one", b'{"n":"bad"}'), _ignore)
    await auntil(lambda: table.writes == 2, "the write that is refused")
    presence.untrack("one")
    table.go.set()
    await auntil(lambda: not table.members, "an empty table")
    assert len(presence) == 0


async def test_a_presence_that_follows_a_refused_one_is_written(
    table: Table, presence: PresenceWriter
) -> None:
    problems: list[str | None] = []
    table.go.clear()
    presence.track(row("one", b'{"n":"bad"}'), problems.append)
    await auntil(lambda: table.writes == 1, "the write that is refused")
    presence.track(row("one", b'{"n":2}'), problems.append)
    table.go.set()
    await auntil(lambda: table.members == {"one": b'{"n":2}'}, "the later row")
    await auntil(lambda: len(problems) == 2, "both answers")
    assert problems[0] is not None
    assert problems[1] is None


async def test_a_change_of_a_row_that_the_table_has_lost_is_written_with_all_others(
    table: Table, presence: PresenceWriter
) -> None:
    answers: list[str | None] = []
    for id_ in ("one", "two"):
        presence.track(row(id_), answers.append)
    await auntil(lambda: len(answers) == 2, "both answers")
    table.members.clear()
    presence.track(row("one", b'{"n":2}'), answers.append)
    await auntil(lambda: len(answers) == 3, "the answer")
    assert table.members == {"one": b'{"n":2}', "two": b'{"n":1}'}
    assert answers == [None] * 3


async def test_a_process_that_is_registered_anew_writes_all_of_its_rows(
    table: Table, presence: PresenceWriter
) -> None:
    answers: list[str | None] = []
    for id_ in ("one", "two"):
        presence.track(row(id_), answers.append)
    await auntil(lambda: len(answers) == 2, "both answers")
    presence.untrack("two")
    table.members = {"three": b"{}"}
    presence.registered()
    await auntil(lambda: table.members == {"one": b'{"n":1}'}, "the rows")


async def test_all_rows_are_written_again_when_a_change_comes_before_their_loss_is_found(
    table: Table, presence: PresenceWriter
) -> None:
    answers: list[str | None] = []
    for id_ in ("one", "two", "three"):
        presence.track(row(id_), answers.append)
    await auntil(lambda: len(answers) == 3, "three answers")
    table.empty()
    presence.track(row("four"), answers.append)
    await auntil(lambda: len(answers) == 4, "the answer")
    assert set(table.members) == {"one", "two", "three", "four"}
    table.empty()
    presence.untrack("four", answers.append)
    await auntil(lambda: len(answers) == 5, "the answer")
    assert set(table.members) == {"one", "two", "three"}


@pytest.mark.parametrize("before", [[], [b'{"n":1}']], ids=["new", "changed"])
async def test_who_leaves_after_a_write_that_passed_without_an_answer_is_not_left_in_the_table(
    table: Table, presence: PresenceWriter, before: list[bytes]
) -> None:
    answers: list[str | None] = []
    for meta in before:
        presence.track(row("one", meta), answers.append)
        await auntil(lambda: answers, "the first answer")
    table.unanswered = True
    presence.track(row("one", b'{"n":2}'), answers.append)
    await auntil(lambda: table.members == {"one": b'{"n":2}'}, "the row")
    presence.untrack("one", answers.append)
    table.unanswered = False
    await auntil(lambda: len(answers) == len(before) + 2, "all answers")
    assert not table.members
    # Others may have read the newer version: the older one would not remove it there.
    assert table.gone == [2 if before else 1]
