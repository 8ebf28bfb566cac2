"""Handlers that run: each committed change once, in order, together with what they write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from realtime import on_change
from realtime.event_log import sequencer
from realtime.handling import cursors, operations, registry
from realtime.handling.definition import HandlerDefinition
from realtime.handling.handled_change import HandledChange
from realtime.handling.operations import CannotDo
from realtime.handling.runner import Runner
from realtime.models import DeadLetter, Handler, HandlerDone, WalEntry
from realtime.wal.head import begin_epoch, read_head
from tests.support.handlers import begun, row, running, until
from tests.support.vendors import on_postgresql
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Note, Team


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(HandlerDefinition, "pause", lambda self, attempts: 0.0)


def write(*titles: str, **values: Any) -> None:
    for title in titles:
        Note.objects.create(title=title, **values)


def copied() -> list[str]:
    return list(Team.objects.order_by("pk").values_list("name", flat=True))


def copy(change: Any) -> None:
    Team.objects.create(name=change.new["title"])


def handled(name: str, count: int) -> None:
    until(lambda: row(name).handled == count)


def stands(name: str) -> Handler:
    return until(lambda: row(name) if row(name).stopped else None)


def test_a_function_gets_each_change_once_and_in_order() -> None:
    got: list[HandledChange] = []
    on_change(Note, name="notes")(got.append)
    with running():
        begun("notes")
        Note.objects.bulk_create([Note(title=str(n)) for n in range(20)])
        Note.objects.filter(title="3").update(title="three")
        Note.objects.filter(title="4").delete()
        with transaction.atomic():
            write("never")
            transaction.set_rollback(True)
        handled("notes", 22)
    assert [change.type for change in got] == ["INSERT"] * 20 + ["UPDATE", "DELETE"]
    assert [change.new["title"] for change in got[:20]] == [str(n) for n in range(20)]
    assert got[20].changed == ("title",)
    assert [change.seq for change in got] == list(range(1, 23))
    assert len({change.delivery_id for change in got}) == 22


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


def test_a_batch_is_a_list_in_one_transaction() -> None:
    got: list[list[Any]] = []
    on_change(Note, name="batches", batch=10, start="beginning")(got.append)
    write(*map(str, range(25)))
    until(lambda: WalEntry.objects.filter(seq=25).exists())
    with running():
        until(lambda: Handler.objects.filter(pk="batches", handled=25))
    assert [len(changes) for changes in got] == [10, 10, 5]


def test_events_columns_and_a_filter_choose() -> None:
    got: list[Any] = []
    on_change(
        Note, name="chosen", events=["UPDATE"], columns=["score"], filter="is_public=eq.true"
    )(got.append)
    with running():
        begun("chosen")
        write("a", is_public=True)
        write("b")
        Note.objects.update(title=F("title"))
        Note.objects.update(score=1)
        Note.objects.filter(title="b").update(is_public=True, score=2)
        until(lambda: row("chosen").seq == 7)
    assert [(change.new["title"], change.new["score"]) for change in got] == [("a", 1), ("b", 2)]


def test_a_new_handler_begins_at_the_head_unless_told_otherwise() -> None:
    late: list[Any] = []
    early: list[Any] = []
    on_change(Note, name="late")(late.append)
    on_change(Note, name="early", start="beginning")(early.append)
    write("before")
    while sequencer.number(connection):
        pass
    with running():
        begun("late", "early")
        write("after")
        handled("late", 1)
        handled("early", 2)
    assert [change.new["title"] for change in late] == ["after"]
    assert [change.new["title"] for change in early] == ["before", "after"]


# --- failures -------------------------------------------------------------------------------------


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


def test_a_stopped_handler_is_resumed_or_skips_the_change() -> None:
    heal = threading.Event()

    @on_change(Note, name="poisoned", attempts=2)
    def fail(change: Any) -> None:
        if change.new["title"] == "bad" and not heal.is_set():
            raise ValueError("poison")
        copy(change)

    with running():
        begun("poisoned")
        write("a", "bad", "b", "bad", "c")
        stands("poisoned")
        assert "leaves change 2 out" in operations.skip("default", "poisoned")
        until(lambda: row("poisoned").failed_seq == 4 and row("poisoned").stopped)
        heal.set()
        assert "goes on after 3" in operations.resume("default", "poisoned")
        handled("poisoned", 4)
    assert copied() == ["a", "b", "bad", "c"]


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


def _raise() -> None:
    raise ValueError("after the commit")


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


# --- several keys at once -------------------------------------------------------------------------


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


# --- who runs it ----------------------------------------------------------------------------------


def test_of_two_runners_one_runs_a_handler_and_the_other_takes_over() -> None:
    on_change(Note, name="copies")(copy)
    with running() as first:
        begun("copies")
        with running() as second:
            write("a")
            handled("copies", 1)
            assert row("copies").owner == first.id
            first.stop(10)
            until(lambda: row("copies").owner == second.id)
            write("b")
            handled("copies", 2)
    assert copied() == ["a", "b"]


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


@pytest.mark.parametrize(("ahead", "taken"), [(-1, True), (10, False), (3600, True)])
def test_a_handler_is_taken_when_its_lease_has_run_out(ahead: int, taken: bool) -> None:
    # A lease that is an hour ahead was given before the clock was set back.
    head = read_head(connection)
    lease = timezone.now() + timedelta(seconds=ahead)
    Handler.objects.create(name="h", epoch=head.epoch, seq=0, owner="elsewhere", lease=lease)
    claim = cursors.take("default", "h", "me", "elsewhere")
    assert (claim is not None) is taken
    assert row("h").owner == ("me" if taken else "elsewhere")


def test_two_handlers_of_one_function_have_cursors_of_their_own() -> None:
    for name in ("one", "two"):
        on_change(Note, name=name)(copy)
    with running():
        begun("one", "two")
        write("a")
        handled("one", 1)
        handled("two", 1)
    assert copied() == ["a", "a"]


def test_definitions_of_a_source_may_change_while_it_runs() -> None:
    got: list[str] = []
    definitions: list[HandlerDefinition] = []
    registry.add_source(lambda: list(definitions))

    def collect(changes: Any) -> None:
        got.extend(change.new["title"] for change in changes)

    def define(filter_: str) -> HandlerDefinition:
        return HandlerDefinition(name="rows", models=(Note,), call=collect, filter=filter_)

    with running():
        definitions.append(define("title=like.a%"))
        begun("rows")
        write("a1", "b1")
        handled("rows", 1)
        until(lambda: row("rows").seq == 2)
        definitions[:] = [define("title=like.b%")]
        write_until(lambda: "b2" in got, "b2")
        definitions.clear()
        until(lambda: not row("rows").owner)
    assert got[0] == "a1"


def write_until(condition: Callable[[], Any], title: str) -> None:
    def written() -> Any:
        write(title)
        return condition()

    until(written)


# --- commands -------------------------------------------------------------------------------------


def test_a_paused_handler_does_nothing_until_it_is_resumed() -> None:
    on_change(Note, name="copies")(copy)
    with running():
        begun("copies")
        write("a")
        handled("copies", 1)
        operations.pause("default", "copies")
        until(lambda: not row("copies").owner)
        write("b")
        other: list[Any] = []
        on_change(Note, name="other", start="beginning")(other.append)
        until(lambda: len(other) == 2)
        assert copied() == ["a"]
        operations.resume("default", "copies")
        handled("copies", 2)
    assert copied() == ["a", "b"]


def test_a_replay_gives_the_same_changes_with_the_same_delivery_ids() -> None:
    got: list[Any] = []
    on_change(Note, name="notes")(got.append)
    with running():
        begun("notes")
        write("a", "b", "c")
        handled("notes", 3)
        operations.replay("default", "notes", 2)
        handled("notes", 5)
    assert [change.new["title"] for change in got] == ["a", "b", "c", "b", "c"]
    assert [c.delivery_id for c in got[1:3]] == [c.delivery_id for c in got[3:]]


def test_what_cannot_be_done_is_said_in_a_line() -> None:
    on_change(Note, name="notes")(copy)
    with pytest.raises(CannotDo, match="Did you mean 'notes'"):
        operations.pause("default", "note")
    with pytest.raises(CannotDo, match="7 is not in it"):
        operations.replay("default", "notes", 7)
    with pytest.raises(CannotDo, match="stands at no change"):
        operations.skip("default", "notes")


# --- the log --------------------------------------------------------------------------------------


def test_changes_that_are_gone_stop_the_handler_and_resuming_leaves_them_out() -> None:
    on_change(Note, name="copies", start="beginning")(copy)
    write("a", "b", "c")
    while sequencer.number(connection):
        pass
    with running():
        begun("copies")
        handled("copies", 3)
    cursors_at = Handler.objects.filter(pk="copies")
    cursors_at.update(seq=0)
    Team.objects.all().delete()
    while sequencer.number(connection):
        pass
    WalEntry.objects.filter(seq__lte=2).delete()
    with running():
        assert stands("copies").stopped == "lost"
        assert copied() == []
        assert "2 changes that are not kept" in operations.resume("default", "copies")
        until(lambda: copied() == ["c"])


def test_a_log_that_began_anew_stops_the_handler_until_it_is_resumed() -> None:
    on_change(Note, name="copies")(copy)
    with running():
        begun("copies")
        write("a")
        handled("copies", 1)
        begin_epoch(connection)
        write("b")
        assert stands("copies").stopped == "epoch"
        assert copied() == ["a"]
        operations.resume("default", "copies")
        handled("copies", 2)
    assert copied() == ["a", "b"]


def test_skipped_changes_are_forgotten_when_they_are_passed() -> None:
    on_change(Note, name="copies")(copy)
    operations.pause("default", "copies")
    write("a", "b")
    while sequencer.number(connection):
        pass
    operations.skip("default", "copies")
    operations.resume("default", "copies")
    assert HandlerDone.objects.count() == 1
    with running():
        handled("copies", 1)
        until(lambda: not HandlerDone.objects.exists())
    assert copied() == ["b"]
    assert cursors.rows("default")["copies"].handled == 1


def test_a_runner_may_be_stopped_while_it_begins_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    on_change(Note, name="begins")(copy)
    runner = Runner("default", 0.01)
    start = threading.Thread.start  # before it is replaced
    failed: list[BaseException] = []

    def stop() -> None:
        try:
            runner.stop(1)
        except BaseException as error:
            failed.append(error)

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "rowcast-begins":
            stopping = threading.Thread(target=stop)
            start(stopping)
            stopping.join()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    running = threading.Thread(target=runner.run)
    start(running)
    running.join(PATIENCE_SECONDS)
    assert not running.is_alive() and not failed
    assert not Handler.objects.exclude(owner="").exists()


# --- runners that ended ---------------------------------------------------------------------------


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
