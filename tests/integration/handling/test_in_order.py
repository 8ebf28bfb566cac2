"""Handlers that get each committed change once, in order, and those that they chose."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.db.models import F

from realtime import on_change
from realtime.handling.handled_change import HandledChange
from realtime.handling.unit_handler import MOST_BYTES
from realtime.models import Handler, WalEntry
from tests.support.handlers import begun, handled, row, running, until, write
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("no_pauses")


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


def test_a_batch_is_a_list_in_one_transaction() -> None:
    got: list[list[Any]] = []
    on_change(Note, name="batches", batch=10, start="beginning")(got.append)
    write(*map(str, range(25)))
    until(lambda: WalEntry.objects.filter(seq=25).exists())
    with running():
        until(lambda: Handler.objects.filter(pk="batches", handled=25))
    assert [len(changes) for changes in got] == [10, 10, 5]


def test_a_batch_has_fewer_changes_where_rows_are_large() -> None:
    got: list[list[int]] = []

    @on_change(Note, name="batches", batch=10, start="beginning")
    def measure(changes: list[Any]) -> None:
        got.append([len(change.new["body"]) for change in changes])

    write(*map(str, range(5)), body="x" * (MOST_BYTES // 2))
    until(lambda: WalEntry.objects.filter(seq=5).exists())
    with running():
        until(lambda: Handler.objects.filter(pk="batches", handled=5))
    assert all(sum(sizes[:-1]) < MOST_BYTES for sizes in got)


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
