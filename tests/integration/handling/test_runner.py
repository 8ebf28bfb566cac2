"""Handlers that run: each committed change once, in order, together with what they write."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from realtime import on_change
from realtime.handling.handled_change import HandledChange
from tests.support.handlers import begun, row, running, until
from tests.zoo.models import Note, Team


def write(*titles: str, **values: Any) -> None:
    for title in titles:
        Note.objects.create(title=title, **values)


def copied() -> list[str]:
    return list(Team.objects.order_by("pk").values_list("name", flat=True))


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
        until(lambda: len(got) >= 22)
        until(lambda: row("notes").handled == 22)
    assert [change.type for change in got] == ["INSERT"] * 20 + ["UPDATE", "DELETE"]
    assert [change.new["title"] for change in got[:20]] == [str(n) for n in range(20)]
    assert got[20].changed == ("title",)
    assert [change.seq for change in got] == list(range(1, 23))
    assert len({change.delivery_id for change in got}) == 22


def test_what_it_writes_and_its_cursor_are_committed_together() -> None:
    fails = {"2": 2, "4": 1}

    @on_change(Note, name="copies", attempts=5)
    def copy(change: Any) -> None:
        Team.objects.create(name=change.new["title"])
        title = change.new["title"]
        if fails.get(title, 0) > 0:
            fails[title] -= 1
            raise ValueError("not now")

    with running():
        begun("copies")
        write(*map(str, range(6)))
        until(lambda: row("copies").handled == 6)
    assert copied() == [str(n) for n in range(6)]
    assert row("copies").failures == 3
    assert (row("copies").attempts, row("copies").last_error) == (0, "")
