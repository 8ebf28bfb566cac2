"""Handlers that fail, hang, run in a loop or end their process."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from realtime import on_change
from realtime.handling import operations
from realtime.models import DeadLetter, Handler, WalEntry
from tests.support.handlers import begun, copied, copy, handled, row, running, stands, until, write
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_a_poisoned_change_stops_its_handler_and_no_other() -> None:
    @on_change(Note, name="poisoned", attempts=3)
    def fail(change: Any) -> None:
        copy(change)
        if change.new["title"] == "bad":
            raise ValueError("poison")

    others: list[Any] = []
    on_change(Note, name="other")(others.append)
    with running():
        begun("poisoned", "other")
        write("good", "bad", "later")
        handled("other", 3)
        stopped = stands("poisoned")
    assert (stopped.stopped, stopped.attempts, stopped.failed_seq) == ("failed", 3, 2)
    assert stopped.last_error == "ValueError: poison"
    assert copied() == ["good"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("nul \0 and half \ud800"), "ValueError: nul \ufffd and half ?"),
        (Unspeakable(), "Unspeakable"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=["no text", "no message", "an exit"],
)
def test_whatever_is_raised_counts_as_a_failure(error: BaseException, said: str) -> None:
    @on_change(Note, name="raises", attempts=2)
    def fail(change: Any) -> None:
        raise error

    with running():
        begun("raises")
        write("a")
        assert stands("raises").last_error == said


def test_a_dead_letter_keeps_the_change_and_the_handler_goes_on() -> None:
    @on_change(Note, name="letters", on_failure="dead_letter", attempts=2, batch=10)
    def fail(changes: list[Any]) -> None:
        for change in changes:
            copy(change)
            if change.new["title"].startswith("bad"):
                raise ValueError("poison")

    with running():
        begun("letters")
        with transaction.atomic():
            write("a", "bad1", "b", "bad2", "c")
        until(lambda: row("letters").seq >= 5)
    assert copied() == ["a", "b", "c"]
    letters = DeadLetter.objects.order_by("seq")
    assert [letter.change["new"]["title"] for letter in letters] == ["bad1", "bad2"]
    assert [(letter.error, letter.attempts) for letter in letters] == [
        ("ValueError: poison", 2),
        ("ValueError: poison", 2),
    ]


def test_a_function_that_hangs_is_given_up_and_commits_nothing() -> None:
    let_go = threading.Event()
    calls: list[str] = []

    @on_change(Note, name="hangs", timeout=0.3, attempts=3)
    def hang(change: Any) -> None:
        calls.append(change.new["title"])
        copy(change)
        if len(calls) == 1:
            let_go.wait(30)
            copy(change)

    with running():
        begun("hangs")
        write("a", "b")
        handled("hangs", 2)
        let_go.set()
        write("c")
        handled("hangs", 3)
    assert copied() == ["a", "b", "c"]
    assert calls == ["a", "a", "b", "c"]
    assert row("hangs").failures == 1


def test_an_asynchronous_function_that_hangs_is_cancelled() -> None:
    calls: list[str] = []

    @on_change(Note, name="hangs", timeout=0.2)
    async def hang(change: Any) -> None:
        calls.append(change.new["title"])
        if len(calls) == 1:
            await asyncio.sleep(30)

    with running():
        begun("hangs")
        write("a")
        handled("hangs", 1)
    assert calls == ["a", "a"]
    assert row("hangs").failures == 1


def test_a_handler_that_writes_to_its_own_table_is_told_of_the_loop() -> None:
    @on_change(Note, name="loops", events=["UPDATE"])
    def bump(change: Any) -> None:
        Note.objects.filter(pk=change.pk).update(score=F("score") + 1)

    with running():
        begun("loops")
        write("a", score=0)
        Note.objects.update(score=1)
        stopped = stands("loops")
    assert stopped.stopped == "loop"
    assert "a loop" in stopped.last_error
    assert 15 < Note.objects.get().score < 30


def test_a_handler_that_marks_its_rows_is_no_loop() -> None:
    @on_change(Note, name="marks", filter="score=is.null")
    def mark(change: Any) -> None:
        Note.objects.filter(pk=change.pk).update(score=1)

    with running():
        begun("marks")
        write(*map(str, range(30)))
        until(lambda: row("marks").seq == 60)
    assert not row("marks").stopped
    assert WalEntry.objects.filter(actor="handler:marks").count() == 30


def abandoned(name: str, **values: Any) -> None:
    """The row of a handler as a process leaves it that was killed."""
    past = timezone.now() - timedelta(seconds=1)
    Handler.objects.filter(pk=name).update(owner="elsewhere", lease=past, **values)


def test_the_changes_that_may_have_ended_a_process_are_tried_one_by_one() -> None:
    got: list[int] = []

    @on_change(Note, name="batches", batch=4, start="beginning")
    def collect(changes: list[Any]) -> None:
        got.append(len(changes))

    write(*map(str, range(12)))
    until(lambda: WalEntry.objects.filter(seq=12).exists())
    operations.pause("default", "batches")
    operations.resume("default", "batches")
    abandoned("batches")
    with running():
        handled("batches", 12)
    assert got == [1, 1, 1, 1, 4, 4]


@pytest.mark.parametrize(("before", "letters"), [({}, 0), ({"failed_seq": 2, "attempts": 1}, 1)])
@pytest.mark.parametrize("options", [{}, {"key": "title", "concurrency": 3}])
def test_a_change_in_whose_middle_a_process_ended_has_failed_once_more(
    before: dict[str, int], letters: int, options: dict[str, Any]
) -> None:
    got: list[str] = []

    @on_change(Note, name="notes", attempts=2, on_failure="dead_letter", **options)
    def collect(change: Any) -> None:
        got.append(change.new["title"])

    with running():
        begun("notes")
        write("a")
        until(lambda: row("notes").seq == 1)
    write("b", "c")
    abandoned("notes", tried_seq=2, **before)
    with running():
        until(lambda: row("notes").seq == 3)
    assert row("notes").failures == 1
    assert got == (["a", "c"] if letters else ["a", "b", "c"])
    assert DeadLetter.objects.filter(seq=2, attempts=2).count() == letters


def test_an_attempt_that_a_stop_interrupts_is_not_counted() -> None:
    reached, go = threading.Event(), threading.Event()

    @on_change(Note, name="waits", start="beginning")
    def wait(change: Any) -> None:
        reached.set()
        go.wait(30)

    write("a")
    operations.pause("default", "waits")
    operations.resume("default", "waits")
    abandoned("waits")
    with running() as runner:
        until(reached.is_set)
        runner.stop(0)
    go.set()
    left = row("waits")
    assert (left.owner, left.tried_seq, left.attempts, left.failures) == ("", None, 0, 0)
