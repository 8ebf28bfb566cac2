"""Handlers that get changes of several keys at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from realtime import on_change
from realtime.handling import operations
from realtime.handling.unit_handler import MOST_BYTES
from realtime.models import DeadLetter, Handler, HandlerDone, WalEntry
from tests.support.handlers import begun, copied, copy, handled, row, running, stands, until, write
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_with_a_key_order_is_kept_for_each_value_and_nothing_is_lost_or_doubled() -> None:
    fails = {"7", "31", "32"}
    lock = threading.Lock()
    got: list[tuple[int, int]] = []

    @on_change(Note, name="keyed", key="score", concurrency=4)
    def keep(change: Any) -> None:
        copy(change)
        with lock:
            if change.new["title"] in fails:
                fails.remove(change.new["title"])
                raise ValueError("not now")
            got.append((change.new["score"], int(change.new["title"])))

    with running() as runner:
        begun("keyed")
        for n in range(40):
            write(str(n), score=n % 5)
        handled("keyed", 40)
        until(lambda: row("keyed").seq >= 40)
        until(lambda: not HandlerDone.objects.exists())
        runner.stop(10)
        Note.objects.filter(title="1").update(score=2)
        with running():
            handled("keyed", 41)
    assert sorted(map(int, copied())) == sorted([*range(40), 1])
    for key in range(5):
        of_key = [title for score, title in got if score == key][:8]
        assert of_key == [n for n in range(40) if n % 5 == key]
    assert row("keyed").failures == 3


def test_with_a_key_a_batch_has_fewer_changes_where_rows_are_large() -> None:
    got: list[list[int]] = []

    @on_change(Note, name="keyed", key="score", concurrency=2, batch=10, start="beginning")
    def measure(changes: list[Any]) -> None:
        got.append([len(change.new["body"]) for change in changes])

    write(*map(str, range(8)), score=1, body="x" * (MOST_BYTES // 2))
    until(lambda: WalEntry.objects.filter(seq=8).exists())
    with running():
        until(lambda: Handler.objects.filter(pk="keyed", handled=8))
        until(lambda: row("keyed").seq == 8)
    assert all(sum(sizes[:-1]) < MOST_BYTES for sizes in got)


@on_postgresql  # On SQLite only one transaction writes at a time.
def test_changes_of_different_keys_are_handled_at_once() -> None:
    both = threading.Barrier(2)

    @on_change(Note, name="keyed", key="title", concurrency=8)
    def meet(change: Any) -> None:
        both.wait(30)

    with running():
        begun("keyed")
        write("a", "b")
        handled("keyed", 2)


@on_postgresql
def test_a_killed_runner_leaves_marks_of_what_it_did_out_of_order() -> None:
    held = threading.Event()
    go = threading.Event()

    @on_change(Note, name="keyed", key="title", concurrency=8)
    def hold(change: Any) -> None:
        if change.new["title"] == "a" and not held.is_set():
            held.set()
            go.wait(30)
        copy(change)

    with running() as first:
        begun("keyed")
        write("a")
        until(held.is_set)
        write("b", "c")
        handled("keyed", 2)
        assert row("keyed").seq == 0
        first.stop(0)
        with running():
            handled("keyed", 3)
            until(lambda: row("keyed").seq >= 3)
        go.set()
    assert sorted(copied()) == ["a", "b", "c"]
    assert not HandlerDone.objects.exists()


def test_with_a_key_failures_are_dead_letters_or_stop_the_handler() -> None:
    def fail(change: Any) -> None:
        if change.new["title"].startswith("bad"):
            raise ValueError("poison")
        copy(change)

    on_change(Note, name="letters", key="score", concurrency=3, on_failure="dead_letter")(fail)
    on_change(Note, name="stops", key="score", concurrency=3, filter="title=like.bad%")(fail)
    with running():
        begun("letters", "stops")
        for n in range(6):
            write(f"bad{n}" if n == 2 else f"good{n}", score=n)
        until(lambda: row("letters").seq >= 6)
        assert stands("stops").failed_seq == 3
        operations.skip("default", "stops")
        until(lambda: row("stops").seq >= 6)
    assert len(copied()) == 5
    assert DeadLetter.objects.get().change["new"]["title"] == "bad2"
