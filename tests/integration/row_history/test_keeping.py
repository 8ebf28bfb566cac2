"""Histories outlive the log: copied before it is pruned, each entry once, and old ones go."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection

import realtime
from realtime import publish
from realtime.models import HistoryEntry, HistoryTable, WalEntry, WalRelation
from realtime.process import pruning
from realtime.row_history import keeping
from tests.support.histories import ALIAS, copy_all, with_history
from tests.support.log import number_all
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.usefixtures("wal")

ALL = timedelta(seconds=-1)
DAY_US = 86_400_000_000


def write(count: int, *, days_ago: float = 0) -> None:
    """Commit and number this many changes, as of some days ago."""
    Note.objects.bulk_create([Note(title=str(n)) for n in range(count)])
    for entry in WalEntry.objects.filter(seq=None):
        aged = entry.captured_us - int(days_ago * DAY_US)
        WalEntry.objects.filter(pk=entry.pk).update(captured_us=aged)
    number_all()


def kept() -> list[int]:
    return list(HistoryEntry.objects.order_by("seq").values_list("seq", flat=True))


def log() -> list[Any]:
    return list(WalEntry.objects.order_by("seq").values_list("seq", flat=True))


def test_entries_are_copied_before_they_are_pruned() -> None:
    with with_history(Note):
        write(3)
        Team.objects.create(name="not kept")
        number_all()
        pruned = pruning.prune(ALL)
        assert (pruned.entries, pruned.copied, pruned.history) == (4, 3, 0)
        assert log() == [] and kept() == [1, 2, 3]


def test_a_history_begins_with_what_the_log_has() -> None:
    write(2)
    pruning.prune(ALL)
    write(2)
    with with_history(Note):
        assert copy_all() == 2
        assert HistoryTable.objects.get().lost_seq == 2
        assert kept() == [3, 4]


def test_no_entry_is_copied_twice() -> None:
    with with_history(Note):
        write(3)
        assert copy_all() == 3 and copy_all() == 0
        write(1)
        assert copy_all() == 1
        assert kept() == [1, 2, 3, 4]


class Killed(Exception):
    """A process that ends while it copies."""


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """Ends the run in the middle of the transaction that copies for the so many-th time."""
    left = [number]

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        done = execute(sql, *rest)
        if "INSERT INTO realtime_history\n" in sql:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return done

    with connection.execute_wrapper(wrapper):
        yield


def test_what_is_killed_in_between_loses_and_doubles_nothing() -> None:
    with with_history(Note):
        write(7)
        for number in (0, 2, 0, 1):
            with killed_at(number), pytest.raises(Killed):
                for _ in keeping.copying(ALIAS, span=2):
                    pass
            assert kept() == list(range(1, len(kept()) + 1))
        assert len(kept()) == 6
        assert sum(keeping.copying(ALIAS, span=2)) == 1
        assert kept() == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_is_pruned_that_could_not_be_copied() -> None:
    with with_history(Note):
        write(3)
        with killed_at(0), pytest.raises(Killed):
            pruning.prune(ALL)
        assert log() == [1, 2, 3] and kept() == []
        pruning.prune(ALL)
        assert log() == [] and kept() == [1, 2, 3]


def test_a_history_that_begins_during_a_run_loses_nothing() -> None:
    write(6)
    pace = pruning.Pace(first=2, most=2)
    run = pruning.steps(ALIAS, ALL, pace)
    while next(run).entries < 2:
        pass
    with with_history(Note):
        for _ in run:
            pass
        assert log() == [3, 4, 5, 6]
        assert copy_all() == 4 and kept() == [3, 4, 5, 6]
        assert HistoryTable.objects.get().lost_seq == 2


def test_entries_older_than_their_days_go() -> None:
    with with_history(Note, days=10):
        write(2, days_ago=12)
        write(2, days_ago=11)
        write(2, days_ago=9)
        pruned = pruning.prune()
        assert (pruned.copied, pruned.history) == (6, 4)
        assert kept() == [5, 6]
        assert HistoryTable.objects.get().lost_seq == 4
        row = Note.objects.order_by("pk").last()
        with pytest.raises(LookupError, match="from seq 5 on"):
            realtime.as_of(row, 3)


def test_a_model_that_asks_no_longer_keeps_what_there_is() -> None:
    with with_history(Note, days=5):
        write(2)
        copy_all()
        publish(Note)
        keeping.note(ALIAS)
        assert HistoryTable.objects.get().active
        keeping.note(ALIAS, exactly=True)
        assert not HistoryTable.objects.get().active
        write(2)
        pruning.prune(ALL)
        assert kept() == [1, 2] and log() == []
        publish(Note, history={"days": 5})
        keeping.note(ALIAS, exactly=True)
        write(1)
        # In between changes were lost, so nothing before is relied on.
        assert copy_all() == 1 and HistoryTable.objects.get().lost_seq == 4


def test_older_code_shortens_no_history() -> None:
    with with_history(Note, days=100):
        publish(Note, history={"days": 5})
        keeping.note(ALIAS)
        assert HistoryTable.objects.get().days == 100
        keeping.note(ALIAS, exactly=True)
        assert HistoryTable.objects.get().days == 5


def test_relations_of_kept_entries_stay() -> None:
    with with_history(Note):
        write(1)
        mine = WalEntry.objects.get().relation_id
        pruning.prune(ALL)
        WalRelation.objects.filter(pk=mine).update(id="older")
        HistoryEntry.objects.update(relation_id="older")
        pruning.prune(ALL)
        assert WalRelation.objects.filter(pk="older").exists()
        WalRelation.objects.filter(pk="older").update(id=mine)


def test_the_command_tells_of_histories() -> None:
    with with_history(Note, days=10):
        write(2, days_ago=12)
        out = io.StringIO()
        call_command("prune_wal", stdout=out)
        assert "Histories: 2 copied from the log, 2 were deleted" in out.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"days": 0},
        {"days": -1},
        {"days": "400"},
        {"days": True},
        {"hours": 3},
        400,
        {"days": float("nan")},
        {"days": 1e9},
        {"days": 4, "hours": 3},
    ],
)
def test_a_wrong_history_is_refused_where_it_is_declared(given: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'takes \{"days": n\}'):
        publish(Note, history=given)
