"""Differences of states, and rows that are put back as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied

import realtime
from realtime.row_history import CannotRevert, diff, revert
from tests.support.histories import with_history
from tests.support.log import number_all
from tests.support.policies import user
from tests.zoo.models import Note, Specimen, Team

pytestmark = pytest.mark.usefixtures("wal")


def changed_note() -> Note:
    """A note whose title was "a" at seq 1, "b" at seq 2, and whose score came at seq 3."""
    row = Note.objects.create(title="a", body="first")
    Note.objects.filter(pk=row.pk).update(title="b")
    Note.objects.filter(pk=row.pk).update(score=5)
    number_all()
    return Note.objects.get()


def test_a_difference_names_the_columns_with_both_values() -> None:
    row = changed_note()
    assert diff(realtime.as_of(row, 1), row) == {"title": ("a", "b"), "score": (None, 5)}
    scored, renamed, inserted = realtime.history(row)
    assert diff(scored) == {"score": (None, 5)} and diff(renamed) == {"title": ("a", "b")}
    assert diff(inserted, scored) == {"title": ("a", "b"), "score": (None, 5)}
    assert diff(inserted)["title"] == (None, "a") and diff(row, row) == {}
    assert diff(row, None)["title"] == ("b", None)
    assert diff({"a": 1, "b": 2}, {"a": 2, "c": 3}) == {"a": (1, 2)}
    with pytest.raises(TypeError, match="expected an instance"):
        diff(row, 5)


def test_columns_that_one_state_lacks_are_not_compared() -> None:
    row = changed_note()
    with with_history(Note, exclude=["body"]):
        assert "body" not in diff(realtime.as_of(row, 1), Note(title="a", body="other"))


def test_a_row_gets_the_values_that_it_had() -> None:
    row = changed_note()
    saved = revert(row, 1)
    stored = Note.objects.get()
    assert (stored.title, stored.score, stored.body) == ("a", None, "first")
    assert saved == stored and saved.title == "a"
    number_all()
    assert diff(realtime.history(row)[0]) == {"title": ("b", "a"), "score": (5, None)}


def test_one_change_is_undone_and_later_ones_stay() -> None:
    row = changed_note()
    renamed = realtime.history(row)[1]
    revert(row, renamed)
    stored = Note.objects.get()
    assert (stored.title, stored.score) == ("a", 5)


def test_a_deleted_row_is_added_again() -> None:
    row = changed_note()
    key = row.pk
    row.delete()
    number_all()
    gone = Note(pk=key)
    revert(gone, realtime.history(gone)[0])
    stored = Note.objects.get()
    assert (stored.pk, stored.title, stored.score) == (key, "b", 5)
    with pytest.raises(CannotRevert, match="there again"):
        revert(gone, realtime.history(gone)[0])


def test_a_deleted_row_is_not_added_with_columns_missing() -> None:
    row = changed_note()
    key = row.pk
    with with_history(Note, exclude=["body"]):
        revert(row, 1)
        assert Note.objects.get().body == "first"
        row.delete()
        number_all()
        with pytest.raises(CannotRevert, match="without body"):
            revert(Note(pk=key), 2)
    assert not Note.objects.exists()


def test_what_cannot_be_put_back_says_why() -> None:
    row = changed_note()
    with pytest.raises(CannotRevert, match="did not exist"):
        revert(row, 0)
    with pytest.raises(CannotRevert, match="INSERT is not undone"):
        revert(row, realtime.history(row)[-1])
    other = Note.objects.create(title="other")
    with pytest.raises(CannotRevert, match="another row"):
        revert(other, realtime.history(row)[0])
    Note.objects.filter(pk=row.pk).update(id=500)
    number_all()
    with pytest.raises(CannotRevert, match="a key is not put back"):
        revert(Note(pk=500), 1)


def test_values_that_cannot_be_stored_any_more_are_refused() -> None:
    team = Team.objects.create(name="gone")
    row = Note.objects.create(title="a", team=team)
    first = Specimen.objects.create()
    second = Specimen.objects.create(twin=first)
    number_all()
    at = realtime.head()
    Note.objects.filter(pk=row.pk).update(team=None)
    Specimen.objects.filter(pk=second.pk).update(twin=None)
    team.delete()
    first.twin = first
    first.save()
    number_all()
    with pytest.raises(CannotRevert, match="team"):
        revert(row, at)
    with pytest.raises(CannotRevert, match=r"(?i)twin"):
        revert(second, at)
    assert Specimen.objects.get(pk=second.pk).twin_id is None


def test_a_user_needs_the_permission_and_policies(granted: Callable[..., Any]) -> None:
    row = changed_note()
    ada = user("ada")
    with pytest.raises(CannotRevert, match="may not see"):
        revert(row, 1, user=ada)
    granted("view_note", using=True, audience="anyone")
    with pytest.raises(PermissionDenied, match="do not hold"):
        revert(row, 1, user=ada)
    ada = _holding(ada, "change_note")
    with pytest.raises(PermissionDenied, match="No policy lets you change"):
        revert(row, 1, user=ada)
    granted("change_note", using={"score": 5}, with_check={"title": "z"}, audience="anyone")
    with pytest.raises(PermissionDenied, match="to that"):
        revert(row, 1, user=ada)
    assert Note.objects.get().title == "b"
    granted("change_note", using={"score": 5}, with_check={"title": "a"}, audience="anyone")
    revert(row, 1, user=ada)
    number_all()
    assert Note.objects.get().title == "a"
    assert realtime.history(row)[0].actor == str(ada.pk)


def test_a_past_that_the_user_may_not_see_is_not_put_back(granted: Callable[..., Any]) -> None:
    row = changed_note()
    ada = _holding(user("ada"), "change_note", "view_note")
    granted("view_note", using={"score": 5}, audience="anyone")
    granted("change_note", using=True, audience="anyone")
    with pytest.raises(CannotRevert, match="may not see it as it was"):
        revert(row, 1, user=ada)


def test_a_hidden_row_is_answered_as_one_that_is_not_there(granted: Callable[..., Any]) -> None:
    granted("view_note", using={"is_public": True}, audience="anyone")
    hidden = Note.objects.create(title="a", is_public=True)
    Note.objects.filter(pk=hidden.pk).update(title="b")
    number_all()
    renamed = realtime.history(hidden)[0]
    at = realtime.head()
    Note.objects.filter(pk=hidden.pk).update(is_public=False)
    absent = Note(pk=hidden.pk + 1_000)
    number_all()
    ada = _holding(user("ada"), "change_note", "add_note", "view_note")

    def said(row: Note, to: Any) -> tuple[type[Exception], str]:
        with pytest.raises((CannotRevert, PermissionDenied)) as caught:
            revert(row, to, user=ada)
        return type(caught.value), str(caught.value)

    assert said(hidden, at) == said(absent, at)
    assert said(hidden, 0) == said(absent, 0)
    assert said(hidden, renamed) == said(absent, replace(renamed, pk=absent.pk))
    assert Note.objects.get().title == "b"


def _holding(who: User, *codenames: str) -> User:
    from django.contrib.auth.models import Permission

    who.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return User.objects.get(pk=who.pk)
