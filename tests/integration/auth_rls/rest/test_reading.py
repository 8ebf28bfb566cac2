"""The REST door: what a view shows, lists and hands to an action."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.support.note_api import MINE, note, stored, titles
from tests.support.policies import policy
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.note_api")]


def test_a_list_holds_what_may_be_seen(api: APIClient, ada: User, bob: User) -> None:
    policy(MINE)
    note("ada's", ada), note("bob's", bob)
    assert titles(api.get("/notes/")) == ["ada's"]
    assert titles(APIClient().get("/notes/")) == []


def test_without_a_policy_nothing_is_shown_and_nothing_can_be_done(
    api: APIClient, ada: User
) -> None:
    kept = note("ada's", ada)
    assert titles(api.get("/notes/")) == []
    assert api.get(f"/notes/{kept.pk}/").status_code == 404
    assert api.post("/notes/", {"title": "x"}).status_code == 403
    assert api.delete(f"/notes/{kept.pk}/").status_code == 404
    assert stored() == {"ada's"}


@pytest.mark.parametrize("route", ["notes", "bare", "both"])
def test_what_cannot_be_seen_is_not_found_and_what_can_only_be_seen_is_refused(
    api: APIClient, ada: User, bob: User, route: str
) -> None:
    policy({"is_public": True})
    policy(MINE, on="zoo.change_note")
    policy(MINE, on="zoo.delete_note")
    hidden, shown = note("hidden", ada), note("shown", bob, is_public=True)
    for method, body in (("get", None), ("patch", {"title": "x"}), ("put", {"title": "x"})):
        ask = getattr(api, method)
        assert ask(f"/{route}/{hidden.pk}/", body).status_code == 404
        assert ask(f"/{route}/{shown.pk}/", body).status_code == (200 if method == "get" else 403)
    assert api.delete(f"/{route}/{hidden.pk}/").status_code == 404
    refused = api.delete(f"/{route}/{shown.pk}/")
    assert refused.status_code == 403
    if route != "both":  # REST framework asks no part of an & for its words
        words = "No policy lets you delete this note (zoo.delete_note)."
        assert refused.json() == {"detail": words}
    assert stored() == {"hidden", "shown"}


def test_an_action_on_an_object_is_a_change_of_it(api: APIClient, ada: User, bob: User) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine, theirs = note("mine", ada), note("theirs", bob)
    assert api.post(f"/notes/{mine.pk}/publish/").status_code == 200
    assert api.post(f"/notes/{theirs.pk}/publish/").status_code == 403
    assert not Note.objects.get(pk=theirs.pk).is_public


def test_a_list_that_is_to_be_deleted_holds_what_may_be_deleted(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.delete_note")
    note("mine", ada), note("theirs", bob)
    assert api.delete("/notes/clear/").status_code == 204
    assert stored() == {"theirs"}


def test_the_filter_alone_finds_only_what_may_be_written_to(
    api: APIClient, ada: User, bob: User
) -> None:
    policy(True)
    policy(MINE, on="zoo.change_note")
    mine, theirs = note("mine", ada), note("theirs", bob)
    assert api.get(f"/narrowed/{theirs.pk}/").status_code == 200
    assert api.patch(f"/narrowed/{theirs.pk}/", {"title": "x"}).status_code == 404
    assert api.patch(f"/narrowed/{mine.pk}/", {"title": "x"}).status_code == 200
    assert api.delete(f"/narrowed/{mine.pk}/").status_code == 404
