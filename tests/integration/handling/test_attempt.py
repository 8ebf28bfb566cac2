"""What a handler writes is committed together with its cursor, or not at all."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F

from realtime import on_change
from realtime.models import Handler
from tests.support.handlers import begun, copied, copy, handled, row, running, until, write
from tests.support.vendors import on_postgresql
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_what_it_writes_and_its_cursor_are_committed_together() -> None:
    fails = {"2": 2, "4": 1}

    @on_change(Note, name="copies")
    def fail_sometimes(change: Any) -> None:
        copy(change)
        title = change.new["title"]
        if fails.get(title, 0) > 0:
            fails[title] -= 1
            raise ValueError("not now")

    with running():
        begun("copies")
        write(*map(str, range(6)))
        handled("copies", 6)
    assert copied() == [str(n) for n in range(6)]
    assert row("copies").failures == 3
    assert (row("copies").attempts, row("copies").last_error) == (0, "")


def test_an_asynchronous_function_writes_in_the_same_transaction() -> None:
    fails = ["1"]

    @on_change(Note, name="async")
    async def fail_once(change: Any) -> None:
        await Team.objects.acreate(name=change.new["title"])
        if change.new["title"] in fails:
            fails.clear()
            raise ValueError("not now")

    with running():
        begun("async")
        write("0", "1", "2")
        handled("async", 3)
    assert copied() == ["0", "1", "2"]


def test_a_function_that_spoils_its_transaction_has_failed() -> None:
    spoils = ["a"]

    @on_change(Note, name="spoils")
    def spoil(change: Any) -> None:
        copy(change)
        if spoils:
            spoils.clear()
            transaction.set_rollback(True)

    with running():
        begun("spoils")
        write("a", "b")
        handled("spoils", 2)
    assert copied() == ["a", "b"]
    assert row("spoils").failures == 1


def test_an_error_after_the_commit_is_no_failure() -> None:
    @on_change(Note, name="commits")
    def later(change: Any) -> None:
        copy(change)
        transaction.on_commit(_raise)

    with running():
        begun("commits")
        write("a", "b")
        handled("commits", 2)
    assert copied() == ["a", "b"]
    assert row("commits").failures == 0


def test_what_hangs_after_the_commit_keeps_its_handler_from_no_other_change() -> None:
    let_go = threading.Event()

    @on_change(Note, name="commits", timeout=0.3)
    def later(change: Any) -> None:
        copy(change)
        if change.new["title"] == "a":
            transaction.on_commit(lambda: let_go.wait(PATIENCE_SECONDS) and None)

    with running():
        begun("commits")
        write("a", "b")
        handled("commits", 2)
        let_go.set()
    assert copied() == ["a", "b"]
    assert row("commits").failures == 0


def _raise() -> None:
    raise ValueError("after the commit")


@on_postgresql  # On SQLite nobody else can write while the attempt runs.
def test_an_attempt_of_a_runner_that_was_replaced_commits_nothing() -> None:
    reached, go = threading.Event(), threading.Event()
    calls: list[str] = []

    @on_change(Note, name="copies")
    def wait(change: Any) -> None:
        calls.append(change.new["title"])
        if len(calls) == 1:
            reached.set()
            go.wait(30)
        copy(change)

    with running(), running():
        begun("copies")
        write("a")
        until(reached.is_set)
        # As if the lease of a paused process had run out.
        Handler.objects.update(owner="", term=F("term") + 1)
        until(lambda: len(calls) == 2)
        go.set()
        handled("copies", 1)
    assert copied() == ["a"]
