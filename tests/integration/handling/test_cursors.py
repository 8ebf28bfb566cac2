"""Where a handler begins, and who may take it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from realtime import on_change
from realtime.handling import cursors
from realtime.models import Handler
from realtime.wal.head import read_head
from tests.support.handlers import begun, copied, copy, handled, row, running, write
from tests.support.log import number_all
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_a_new_handler_begins_at_the_head_unless_told_otherwise() -> None:
    late: list[Any] = []
    early: list[Any] = []
    on_change(Note, name="late")(late.append)
    on_change(Note, name="early", start="beginning")(early.append)
    write("before")
    number_all()
    with running():
        begun("late", "early")
        write("after")
        handled("late", 1)
        handled("early", 2)
    assert [change.new["title"] for change in late] == ["after"]
    assert [change.new["title"] for change in early] == ["before", "after"]


def test_two_handlers_of_one_function_have_cursors_of_their_own() -> None:
    for name in ("one", "two"):
        on_change(Note, name=name)(copy)
    with running():
        begun("one", "two")
        write("a")
        handled("one", 1)
        handled("two", 1)
    assert copied() == ["a", "a"]


@pytest.mark.parametrize(("ahead", "taken"), [(-1, True), (10, False), (3600, True)])
def test_a_handler_is_taken_when_its_lease_has_run_out(ahead: int, taken: bool) -> None:
    # A lease that is an hour ahead was given before the clock was set back.
    head = read_head(connection)
    lease = timezone.now() + timedelta(seconds=ahead)
    Handler.objects.create(name="h", epoch=head.epoch, seq=0, owner="elsewhere", lease=lease)
    lease = cursors.take("default", "h", "me", "elsewhere")
    assert (lease is not None) is taken
    assert row("h").owner == ("me" if taken else "elsewhere")
