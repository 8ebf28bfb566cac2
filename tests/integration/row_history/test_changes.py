"""The history of a row: its changes from the log, the newest first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

import realtime
from auth_rls import Subject
from realtime.testing import Change
from tests.support.histories import copy_all, with_history
from tests.support.log import number_all
from tests.support.policies import user
from tests.zoo.models import Diner, Member, Note, Seat, Specimen, Team

pytestmark = pytest.mark.usefixtures("wal")


def told(changes: Any) -> list[tuple[str, Any]]:
    return [(change.type, (change.new or change.old or {}).get("title")) for change in changes]


def note(*titles: str, **fields: Any) -> Note:
    """A note that has had these titles in turn."""
    found = Note.objects.create(title=titles[0], **fields)
    for title in titles[1:]:
        found.title = title
        found.save()
    number_all()
    return found


def test_changes_come_newest_first_with_their_writer() -> None:
    with realtime.actor("import"):
        row = note("a", "b")
    Note.objects.create(title="another")
    Note.objects.filter(pk=row.pk).update(title="c")
    key = row.pk
    row.delete()
    number_all()
    found = realtime.history(Note(pk=key))
    assert told(found) == [("DELETE", "c"), ("UPDATE", "c"), ("UPDATE", "b"), ("INSERT", "a")]
    assert [change.actor for change in found] == [None, None, "import", "import"]
    assert isinstance(found[0], Change) and found[0].model is Note and found[0].pk == key
    assert [change.seq for change in found] == [5, 4, 2, 1]
    assert found[1].old["title"] == "b" and found[1].changed == ("title",)


def test_a_history_is_a_sequence_that_is_read_once() -> None:
    row = note("a", "b", "c")
    found = realtime.history(row)
    assert found and len(found) == 3 and found[-1].type == "INSERT"
    assert told(found[:2]) == [("UPDATE", "c"), ("UPDATE", "b")]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(list(found)) == 3 and found.complete
    assert not queries.captured_queries
    with pytest.raises(IndexError):
        found[3]
    assert not realtime.history(Note(pk=row.pk + 1))


def test_what_has_no_number_yet_is_not_told() -> None:
    row = note("a")
    Note.objects.filter(pk=row.pk).update(title="b")
    assert told(realtime.history(row)) == [("INSERT", "a")]
    number_all()
    assert told(realtime.history(row)) == [("UPDATE", "b"), ("INSERT", "a")]


def test_a_row_is_followed_through_its_keys() -> None:
    row = note("a", id=10)
    Note.objects.filter(pk=10).update(id=20)
    other = note("other", id=10)
    Note.objects.filter(pk=20).update(title="b")
    number_all()
    assert told(realtime.history(Note(pk=20))) == [
        ("UPDATE", "b"),
        ("UPDATE", "a"),
        ("INSERT", "a"),
    ]
    # What had the key before is another row.
    assert told(realtime.history(other)) == [("INSERT", "other")]
    assert row.pk == 10


def test_a_row_that_came_back_has_its_earlier_life() -> None:
    row = note("a", id=10)
    row.delete()
    note("b", id=10)
    changes = realtime.history(Note(pk=10))
    assert told(changes) == [("INSERT", "b"), ("DELETE", "a"), ("INSERT", "a")]


def test_a_composite_key_has_a_history() -> None:
    Seat.objects.create(hall=1, number=2)
    Seat.objects.create(hall=12, number=2)
    Seat.objects.filter(hall=1).update(taken=True)
    number_all()
    found = realtime.history(Seat(hall=1, number=2))
    assert [change.type for change in found] == ["UPDATE", "INSERT"]
    assert found[0].pk == (1, 2)


def test_models_and_instances_without_a_history_are_refused() -> None:
    with pytest.raises(LookupError, match=r"zoo\.Member is not published"):
        realtime.history(Member(pk=1))
    with pytest.raises(ValueError, match="no primary key"):
        realtime.history(Note())
    assert not realtime.history(Diner(pk=5))


def test_columns_that_are_not_published_today_are_not_shown() -> None:
    row = note("a", body="secret")
    Note.objects.filter(pk=row.pk).update(body="more secret")
    Note.objects.filter(pk=row.pk).update(title="b")
    number_all()
    assert len(realtime.history(row)) == 3
    with with_history(Note, exclude=["body"]):
        found = realtime.history(row)
        # Nor is a change that changed nothing else.
        assert told(found) == [("UPDATE", "b"), ("INSERT", "a")]
        assert "secret" not in repr([*found])
        assert all("body" not in change.columns for change in found)


def test_a_subject_is_shown_what_policies_show(granted: Callable[..., Any]) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    row = note("private")
    with realtime.actor("somebody"):
        Note.objects.filter(pk=row.pk).update(is_public=True, title="public")
        Note.objects.filter(pk=row.pk).update(title="b")
    number_all()
    (second, first) = realtime.history(row, subject=Subject.anonymous())
    assert told([second, first]) == [("UPDATE", "b"), ("UPDATE", "public")]
    assert first.old == {} and second.old["title"] == "public"
    assert first.actor is None
    assert realtime.history(row)[0].actor == "somebody"
    Note.objects.filter(pk=row.pk).update(is_public=False)
    number_all()
    # The row is hidden today, and so is all that was to be seen of it.
    assert not realtime.history(row, subject=Subject.anonymous())
    assert len(realtime.history(row)) == 4


def test_without_policies_nothing_is_shown() -> None:
    row = note("a")
    ada = user("ada", "zoo.view_note")
    assert not realtime.history(row, subject=ada)
    assert not realtime.history(row, subject=Subject.anonymous())
    ada.is_active = False
    assert not realtime.history(row, subject=ada)
    key = row.pk
    row.delete()
    number_all()
    assert not realtime.history(Note(pk=key), subject=ada)
    with pytest.raises(TypeError):
        realtime.history(Note(pk=key), subject="ada")


def test_a_writer_is_told_of_own_changes_alone(granted: Callable[..., Any]) -> None:
    granted("view_note", using=True, audience="anyone")
    ada, bob = user("ada"), user("bob")
    with realtime.actor(ada):
        row = note("a")
    with realtime.actor(bob):
        Note.objects.filter(pk=row.pk).update(title="b")
    number_all()
    assert [change.actor for change in realtime.history(row, subject=ada)] == [None, str(ada.pk)]
    with realtime.actor(str(None)):
        Note.objects.update(score=4)
    number_all()
    assert realtime.history(row, subject=Subject.anonymous())[0].actor is None


def test_a_search_can_be_bounded_and_says_so() -> None:
    row = note("a")
    Team.objects.bulk_create([Team(name=str(n)) for n in range(20)])
    Note.objects.filter(pk=row.pk).update(title="b")
    number_all()
    found = realtime.history(row, most_searched=10)
    assert told(found) == [("UPDATE", "b")]
    assert not found.complete and found.searched_to == 12
    assert realtime.history(row, most_searched=100).complete


def test_a_history_of_its_own_is_read_without_searching_the_log() -> None:
    with with_history(Note):
        row = note("a")
        Team.objects.bulk_create([Team(name=str(n)) for n in range(20)])
        number_all()
        copy_all()
        found = realtime.history(row, most_searched=1)
        assert told(found) == [("INSERT", "a")] and found.complete


def test_changes_of_one_transaction_have_one_number() -> None:
    with transaction.atomic():
        row = note("a", "b")
    Note.objects.filter(pk=row.pk).update(title="c")
    number_all()
    found = realtime.history(row)
    third, second, first = (txid for _, txid in found.with_transactions())
    assert first == second is not None and third != first


def test_a_key_longer_than_an_index_takes_is_found() -> None:
    specimen = Specimen.objects.create(char="x" * 150)
    number_all()
    with with_history(Specimen):
        copy_all()
        assert [change.type for change in realtime.history(specimen)] == ["INSERT"]


@pytest.mark.parametrize("kept", [False, True])
def test_many_changes_of_a_large_row_are_read_in_pieces(kept: bool) -> None:
    row = Note.objects.create(title="start", body="x" * 250_000)
    for number in range(38):
        Note.objects.filter(pk=row.pk).update(title=str(number))
    number_all()
    with with_history(Note) if kept else nullcontext():
        if kept:
            copy_all()
        found = [change.new["title"] for change in realtime.history(row) if change.new]
        assert found == [*map(str, reversed(range(38))), "start"]
        assert [row.title for row in realtime.as_of(Note.objects.all(), 20)] == ["18"]


@pytest.mark.django_db
@pytest.mark.parametrize("given", [Note, "note 1", None])
def test_what_is_no_instance_has_no_history(given: Any) -> None:
    with pytest.raises(TypeError, match="expected a model instance, not"):
        realtime.history(given)
