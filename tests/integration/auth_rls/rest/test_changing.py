"""The REST door: a change is judged by the row before it and the row after it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.support.note_api import MINE, note
from tests.support.policies import policy
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.note_api")]


def test_a_patch_cannot_carry_a_row_to_where_it_could_not_be_changed(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"score": 5}).status_code == 200
    refused = api.patch(f"/notes/{mine.pk}/", {"owner": bob.pk})
    assert refused.status_code == 403
    assert refused.json() == {
        "detail": "No policy lets you change the note to that (zoo.change_note)."
    }
    assert api.put(f"/notes/{mine.pk}/", {"title": "x", "owner": bob.pk}).status_code == 403
    mine.refresh_from_db()
    assert (mine.owner, mine.title, mine.score) == (ada, "mine", 5)


def test_a_check_of_its_own_lets_rows_be_given_away(api: APIClient, ada: User, bob: User) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note", with_check={"is_public": False})
    mine = note("mine", ada)
    assert api.patch(f"/notes/{mine.pk}/", {"is_public": True}, "json").status_code == 403
    assert api.patch(f"/notes/{mine.pk}/", {"owner": bob.pk}, "json").status_code == 200


def test_a_change_that_passes_by_save_is_judged_before_it_is_committed(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine = note("mine", ada)
    assert api.patch(f"/put/{mine.pk}/", {"title": "still mine"}).status_code == 200
    assert api.patch(f"/put/{mine.pk}/", {"owner": bob.pk}).status_code == 403
    mine.refresh_from_db()
    assert mine.owner == ada


def test_changes_in_bulk_are_judged_by_old_and_new_rows(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    note("one", ada), note("two", ada)
    body = [{"title": "1", "owner": ada.pk}, {"title": "2", "owner": ada.pk}]
    assert api.put("/bulk/all/", body, "json").status_code == 200
    given = [body[0], {"title": "2", "owner": bob.pk}]
    assert api.put("/bulk/all/", given, "json").status_code == 403
    Note.objects.filter(title="2").update(owner=bob)
    taken = [{"title": "x", "owner": ada.pk}, {"title": "y", "owner": ada.pk}]
    assert api.put("/bulk/all/", taken, "json").status_code == 403
    assert list(Note.objects.order_by("id").values_list("title", "owner")) == [
        ("1", ada.pk),
        ("2", bob.pk),
    ]


def test_outside_of_a_view_nothing_is_guarded(api: APIClient, ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/notes/", {"title": "x"}).status_code == 403
    note("saved by the application itself")
