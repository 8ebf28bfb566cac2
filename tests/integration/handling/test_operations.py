"""What a person does to a handler that runs or stands still."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection

from realtime import on_change
from realtime.handling import cursors, operations
from realtime.handling.operations import CannotDo
from realtime.models import Handler, HandlerDone, WalEntry
from realtime.wal.head import begin_epoch
from tests.support.handlers import begun, copied, copy, handled, row, running, stands, until, write
from tests.support.log import number_all
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("no_pauses")


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


def test_changes_that_are_gone_stop_the_handler_and_resuming_leaves_them_out() -> None:
    on_change(Note, name="copies", start="beginning")(copy)
    write("a", "b", "c")
    number_all()
    with running():
        begun("copies")
        handled("copies", 3)
    cursors_at = Handler.objects.filter(pk="copies")
    cursors_at.update(seq=0)
    Team.objects.all().delete()
    number_all()
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
    number_all()
    operations.skip("default", "copies")
    operations.resume("default", "copies")
    assert HandlerDone.objects.count() == 1
    with running():
        handled("copies", 1)
        until(lambda: not HandlerDone.objects.exists())
    assert copied() == ["b"]
    assert cursors.rows("default")["copies"].handled == 1
