"""Handlers that run on what a block wrote, inside a transaction that is never committed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import F

from realtime import on_change
from realtime.handling import registry
from realtime.models import Handler
from realtime.testing import SetupError, captured_changes, handled_changes
from tests.zoo.models import Note, Team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def none_declared() -> Iterator[None]:
    with registry.isolated():
        yield


def copy(change: Any) -> None:
    Team.objects.create(name=change.new["title"])


def names() -> list[str]:
    return list(Team.objects.order_by("pk").values_list("name", flat=True))


def test_a_handler_gets_what_the_block_wrote_and_chose() -> None:
    on_change(Note, events=["UPDATE"], columns=["score"], filter="score=gt.1", name="copies")(copy)
    before = Note.objects.create(title="before", score=9, price="1.10")
    with handled_changes("copies") as handled:
        Note.objects.create(title="new", score=5)
        Note.objects.filter(pk=before.pk).update(title="renamed")
        Note.objects.update(score=F("score") - 4)
        assert handled == [] and names() == []
    (change,) = handled
    assert (change.type, change.pk, change.changed) == ("UPDATE", before.pk, ("score",))
    assert change.new["price"] == Decimal("1.10") and change.delivery_id
    assert names() == ["renamed"]
    assert not Handler.objects.exists()


def test_several_handlers_run_in_batches_and_asynchronous_ones_too() -> None:
    sizes: list[int] = []

    @on_change(Note, batch=3, name="batches")
    def collect(changes: list[Any]) -> None:
        sizes.append(len(changes))

    @on_change(Note, name="asynchronous")
    async def later(change: Any) -> None:
        await Team.objects.acreate(name=change.new["title"])

    with handled_changes() as handled:
        Note.objects.bulk_create(Note(title=str(n)) for n in range(5))
    assert sizes == [3, 2]
    assert names() == ["0", "1", "2", "3", "4"]
    assert len(handled) == 10


def test_what_handlers_write_is_handled_too_and_bears_their_name() -> None:
    on_change(Note, name="copies")(copy)
    teams: list[Any] = []
    on_change(Team, name="teams")(teams.append)
    with captured_changes() as written, handled_changes():
        Note.objects.create(title="a")
    assert [change.new["name"] for change in teams] == ["a"]
    assert [change.actor for change in written] == [None, "handler:copies"]


def test_what_a_handler_raises_fails_the_test_and_leaves_nothing() -> None:
    @on_change(Note, name="fails")
    def fail(change: Any) -> None:
        copy(change)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), handled_changes():
        Note.objects.create(title="a")
    assert names() == []
    assert Note.objects.count() == 1


def test_a_loop_is_told() -> None:
    @on_change(Note, name="loops", events=["UPDATE"])
    def bump(change: Any) -> None:
        Note.objects.filter(pk=change.pk).update(score=F("score") + 1)

    Note.objects.create(title="a", score=0)
    with pytest.raises(AssertionError, match="a loop: the handler 'loops'"), handled_changes():
        Note.objects.update(score=1)


def test_a_name_that_no_handler_has_and_a_handler_that_does_not_fit_say_so_first() -> None:
    on_change(Note, name="copies", columns=["titel"])(copy)
    with pytest.raises(SetupError, match="Did you mean 'copies'"), handled_changes("copy"):
        pytest.fail("the block is not run")
    with pytest.raises(SetupError, match="Did you mean 'title'"), handled_changes():
        pytest.fail("the block is not run")
