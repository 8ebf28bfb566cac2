"""The REST door: a new row is judged as it is saved, on every way that saves one."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.support.note_api import MINE, note, stored
from tests.support.policies import policy
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.note_api")]

MY_TEAMS = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}


def test_a_new_row_is_judged_before_it_is_saved(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/notes/", {"title": "mine", "owner": ada.pk}).status_code == 201
    refused = api.post("/notes/", {"title": "theirs", "owner": bob.pk})
    assert refused.status_code == 403
    assert refused.json() == {"detail": "No policy lets you add this note (zoo.add_note)."}
    assert api.post("/notes/", {"title": "nobody's"}).status_code == 403
    assert stored() == {"mine"}


def test_what_the_view_adds_to_a_row_counts(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/owned/", {"title": "mine", "owner": bob.pk}).status_code == 201
    assert Note.objects.get().owner == ada


def test_who_may_add_nothing_is_told_before_the_body_is_looked_at(api: APIClient) -> None:
    policy(True)
    assert api.post("/notes/", {}).status_code == 403
    policy(True, on="zoo.add_note")
    assert api.post("/notes/", {}).status_code == 400


def test_nobody_is_asked_to_sign_in_rather_than_refused(ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE, audience="authenticated")
    assert APIClient().post("/by-password/", {"title": "x"}).status_code == 401


@pytest.mark.parametrize("route", ["notes", "bulk"])
def test_of_many_new_rows_all_are_added_or_none(
    api: APIClient, ada: User, bob: User, route: str
) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    mine = [{"title": f"{number}", "owner": ada.pk} for number in range(3)]
    refused = api.post(f"/{route}/many/", [*mine, {"title": "x", "owner": bob.pk}], "json")
    assert refused.status_code == 403
    assert stored() == set()
    assert api.post(f"/{route}/many/", mine, "json").status_code == 201
    assert stored() == {"0", "1", "2"}


def test_a_put_that_creates_is_an_add(api: APIClient, ada: User, bob: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    policy(MINE, on="zoo.change_note")
    hidden = note("hidden", bob)
    url = "/put-as-create/{}/".format
    body = {"title": "new", "owner": ada.pk}
    assert api.put(url(hidden.pk + 1), {**body, "owner": bob.pk}).status_code == 403
    assert api.put(url(hidden.pk + 1), body).status_code == 201
    # It is not seen, so it looks as if it were not there; it must not be overwritten for that.
    assert api.put(url(hidden.pk), body).status_code == 403
    assert stored() == {"hidden", "new"}


def test_a_view_that_saves_by_hand_is_guarded_too(api: APIClient, ada: User) -> None:
    policy(None, on="zoo.add_note", with_check=MINE)
    assert api.post("/by-hand/", {"title": "x"}).status_code == 403
    assert api.post("/by-hand/", {"title": "x", "owner": ada.pk}).status_code == 201


def test_nested_rows_are_judged_by_their_own_policies(api: APIClient, ada: User) -> None:
    policy(True, on="zoo.add_note")
    body = {"title": "x", "team": {"name": "red"}}
    assert api.post("/with-team/", body, "json").status_code == 403
    assert not Team.objects.exists()
    policy({"name": "red"}, on="zoo.add_team")
    assert api.post("/with-team/", body, "json").status_code == 201
    assert api.post("/with-team/", {**body, "team": {"name": "blue"}}, "json").status_code == 403
    assert list(Team.objects.values_list("name", flat=True)) == ["red"]


def test_a_foreign_key_is_judged_as_a_value_of_the_row(api: APIClient, ada: User) -> None:
    policy({"team__in": MY_TEAMS}, on="zoo.add_note")
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    Member.objects.create(user=ada, team=red)
    assert api.post("/notes/", {"title": "x", "team": red.pk}).status_code == 201
    assert api.post("/notes/", {"title": "y", "team": blue.pk}).status_code == 403


def test_a_hidden_row_can_be_pointed_to_no_more_than_one_that_is_not_there(
    api: APIClient, ada: User
) -> None:
    policy(True, on="zoo.add_note")
    policy({"name": "red"}, on="zoo.view_team")
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    hidden = api.post("/careful/", {"title": "x", "team": blue.pk})
    missing = api.post("/careful/", {"title": "x", "team": 10**6})
    assert hidden.status_code == missing.status_code == 400
    assert hidden.json()["team"][0].replace(str(blue.pk), "?") == missing.json()["team"][0].replace(
        str(10**6), "?"
    )
    assert api.post("/careful/", {"title": "x", "team": red.pk}).status_code == 201


def test_the_forms_of_the_browsable_api_offer_no_hidden_row(api: APIClient, ada: User) -> None:
    policy(True)
    policy(True, on="zoo.add_note")
    policy({"name": "red team"}, on="zoo.view_team")
    Team.objects.create(name="red team"), Team.objects.create(name="blue team")
    page = api.get("/careful/", headers={"accept": "text/html"}).content.decode()
    assert "red team" in page and "blue team" not in page
