"""The pages beside the policies: why a row is shown or not, and a policy tried out unsaved."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from auth_rls.models import Policy
from tests.support.policies import drop_the_score, permission, policy, user
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]

LIST = "/admin/auth_rls/policy/"
EXPLAIN = f"{LIST}explain/"
TEST = f"{LIST}test/"


def logged_in(name: str, *permissions: str, **fields: Any) -> Client:
    client = Client(enforce_csrf_checks=False)
    client.force_login(
        user(name, *permissions, is_staff=True, **fields),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


@pytest.fixture
def admin(db: None) -> Client:
    return logged_in("root", is_superuser=True)


def explained(client: Client, note: Any, **question: str) -> str:
    """The page's text, without markup."""
    asked = {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(note.pk)}
    response = client.get(EXPLAIN, {**asked, **question})
    assert response.status_code == 200
    return text_of(response)


def text_of(response: Any) -> str:
    page = response.content.decode()
    body = page[page.index('id="content-main"') :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def form(using: Any, on: str = "zoo.view_note", **fields: Any) -> dict[str, Any]:
    return {
        "name": "Edited",
        "permission": str(permission(on).pk),
        "audience": "anyone",
        "mode": "permissive",
        "enabled": "on",
        "using": json.dumps(using) if using is not None else "",
        "with_check": "",
        "test_user": "",
        **fields,
    }


def tried(client: Client, data: dict[str, Any], stored: Policy | None = None) -> str:
    query = "" if stored is None else f"?policy={stored.pk}"
    response = client.post(f"{TEST}{query}", data)
    assert response.status_code == 200
    return text_of(response)


def test_the_page_shows_verdict_clauses_and_doors(admin: Client) -> None:
    ada = user("ada")
    note = Note.objects.create(title="Soup", owner=ada)
    policy({"any": [{"is_public": True}, {"owner": "$user.id"}]}, name="Own or public")
    text = explained(admin, note, user="ada")
    assert "Allowed" in text and "“Own or public” lets the row through." in text
    assert f"owner_id is {ada.pk}; $user.id is {ada.pk}" in text
    assert "is_public is false" in text
    for door in ("stream allowed", "queryset allowed", "has_perm allowed"):
        assert door in text


def test_the_page_is_laid_out_as_the_other_pages_of_this_django(admin: Client) -> None:
    """Django 6.1 made the breadcrumbs a list, and moved the tools beside the title."""
    ours, list_ = (admin.get(url).content.decode() for url in (EXPLAIN, LIST))
    for markup in ('<ol class="breadcrumbs">', '<div class="breadcrumbs">'):
        assert (markup in ours) == (markup in list_)
    assert ours.count('<ul class="object-tools">') == 1
    content = 'id="content-main"'
    tools = [page.index('class="object-tools"') < page.index(content) for page in (ours, list_)]
    assert tools[0] == tools[1]


def test_only_the_clauses_that_decide_are_marked(admin: Client) -> None:
    note = Note.objects.create(title="Soup")
    policy({"any": [{"is_public": True}, {"title": "Soup"}]})
    page = admin.get(
        EXPLAIN, {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(note.pk)}
    ).content.decode()
    assert page.count('<li class="auth-rls-decides">') == 2
    assert page.count("<li><span") == 1


def test_what_rows_and_policies_say_is_escaped(admin: Client) -> None:
    bad = "<script>alert(1)</script>"
    note = Note.objects.create(title=bad)
    policy({"title": bad}, name=bad)
    page = admin.get(
        EXPLAIN, {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(note.pk)}
    ).content.decode()
    assert bad not in page and escape(bad) in page
    page = admin.post(TEST, form(True)).content.decode()
    assert bad not in page and escape(bad) in page


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"user": "eve"}, "user"),
        ({"claims": "{"}, "claims"),
        ({"permission": "zoo.view_nope"}, "permission"),
        ({"pk": "no"}, "pk"),
        ({"pk": ""}, "pk"),
    ],
)
def test_an_error_stands_at_its_field(admin: Client, question: dict[str, str], field: str) -> None:
    note = Note.objects.create(title="x")
    asked = {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(note.pk)}
    response = admin.get(EXPLAIN, asked | question)
    assert response.status_code == 200 and list(response.context["form"].errors) == [field]


def test_an_empty_form_complains_of_nothing_and_takes_a_permission(admin: Client) -> None:
    assert not admin.get(EXPLAIN).context["form"].errors
    page = admin.get(EXPLAIN, {"permission": "zoo.view_note"})
    assert not page.context["form"].errors and 'value="zoo.view_note"' in page.content.decode()


def test_claims_are_explained_without_a_user(admin: Client) -> None:
    note = Note.objects.create(title="x", score=7)
    policy({"score": "$claims.n"})
    text = explained(admin, note, claims='{"n": 8}')
    assert "Denied" in text and "score is 7; $claims.n is 8" in text


def test_explaining_needs_the_right_to_view_policies() -> None:
    note = Note.objects.create(title="x")
    asked = {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(note.pk)}
    assert logged_in("staff").get(EXPLAIN, asked).status_code == 403
    assert Client().get(EXPLAIN, asked).status_code == 302
    viewer = logged_in("viewer", "auth_rls.view_policy")
    assert viewer.get(EXPLAIN, asked).status_code == 200


def test_values_are_withheld_from_who_may_not_see_the_row() -> None:
    owner = user("ada", email="ada@example.org")
    note = Note.objects.create(title="Secret soup", owner=owner, score=41)
    policy({"score__gt": 40, "title": "$user.email"})
    viewer = logged_in("viewer", "auth_rls.view_policy")
    text = explained(viewer, note, user="ada")
    assert "You may not view notes." in text and "score is withheld" in text
    assert "41" not in text and "Secret" not in text and "example.org" not in text
    # What stands in the policy is for those who may view policies.
    assert "score is greater than 40" in text


def test_a_viewer_of_the_model_sees_values_of_rows_that_policies_show_them() -> None:
    shown = Note.objects.create(title="Open soup", score=41, is_public=True)
    hidden = Note.objects.create(title="Secret soup", score=42)
    policy({"is_public": True})
    viewer = logged_in("viewer", "auth_rls.view_policy", "zoo.view_note")
    assert "Open soup" in explained(viewer, shown)
    text = explained(viewer, hidden)
    assert "You may not view this row." in text and "Secret" not in text


def test_values_of_other_users_need_the_right_to_view_users() -> None:
    ada = user("ada", email="ada@example.org")
    note = Note.objects.create(title="x", owner=ada)
    policy({"title": "$user.email"})
    editor = logged_in("editor", "auth_rls.change_policy", "zoo.view_note")
    assert "example.org" not in explained(editor, note, user="ada")
    reader = logged_in("reader", "auth_rls.change_policy", "zoo.view_note", "auth.view_user")
    assert "example.org" in explained(reader, note, user="ada")


def test_an_unsaved_policy_is_tried_beside_the_others(admin: Client) -> None:
    ada = user("ada")
    Note.objects.create(title="own", owner=ada)
    Note.objects.create(title="public", is_public=True)
    Note.objects.create(title="hidden")
    policy({"owner": "$user.id"}, name="Own notes")
    text = tried(admin, form({"is_public": True}, test_user="ada"))
    assert "As ada" in text and "2 of 3 rows visible (now: 1; 1 new, 0 no longer)" in text
    # What the edit changes comes first.
    assert re.search(r"New 1 \d+ public As before 1 \d+ own$", text) and "hidden" not in text
    assert Policy.objects.count() == 1


def test_an_edit_takes_the_place_of_what_is_stored(admin: Client) -> None:
    Note.objects.create(title="one", score=1)
    Note.objects.create(title="two", score=2)
    stored = policy({"score": 1}, name="Edited")
    text = tried(admin, form({"score": 2}), stored)
    assert "1 of 2 rows visible (now: 1; 1 new, 1 no longer)" in text
    assert re.search(r"New 1 \d+ two No longer 1 \d+ one$", text)
    renamed = tried(admin, form(False, name="Renamed"), stored)
    assert "0 of 2 rows visible (now: 1;" in renamed
    stored.refresh_from_db()
    assert stored.using == {"score": 1} and stored.name == "Edited"


def test_a_policy_that_is_switched_off_in_the_form_grants_nothing(admin: Client) -> None:
    Note.objects.create(title="one")
    off = form(True)
    del off["enabled"]
    text = tried(admin, off)
    assert "switched off" in text and "0 of 1 rows visible" in text


def test_a_policy_is_tried_for_changes_additions_and_deletions(admin: Client) -> None:
    ada = user("ada")
    Member.objects.create(user=ada, team=(team := Team.objects.create(name="Stage")))
    Note.objects.create(title="a", team=team)
    Note.objects.create(title="b")
    mine = {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}}
    asked = {"test_user": "ada"}
    assert "1 of 2 rows to change" in tried(admin, form(mine, on="zoo.change_note", **asked))
    assert "1 of 2 rows to delete" in tried(admin, form(mine, on="zoo.delete_note", **asked))
    adding = form(None, on="zoo.add_note", with_check=json.dumps(mine), **asked)
    assert "1 of 2 rows could be added" in tried(admin, adding)


def test_what_is_wrong_with_the_edit_is_said_and_nothing_is_tried(admin: Client) -> None:
    text = tried(admin, form({"nope": 1}))
    assert "cannot be tested" in text and "unknown column 'nope'" in text
    assert "There is no user" in tried(admin, form(True, test_user="eve"))


def test_only_the_first_rows_are_listed(admin: Client) -> None:
    Note.objects.bulk_create(Note(title=f"note {n}") for n in range(25))
    text = tried(admin, form(True))
    assert "25 of 25 rows visible" in text and "note 19" in text and "note 20" not in text
    assert "the first 20 of 25, by primary key" in text


def test_it_is_said_that_a_superuser_bypasses(admin: Client) -> None:
    Note.objects.create(title="hidden")
    text = tried(admin, form(False, test_user="root"))
    assert "no policy restricts this user" in text and "1 of 1 rows visible (now: 1;" in text
    user("ada")
    assert "no policy restricts" not in tried(admin, form(False, test_user="ada"))


def test_a_value_beside_the_choices_is_warned_of_where_it_is_tried(admin: Client) -> None:
    text = tried(admin, form({"status": "opne"}, on="demo.view_task"))
    assert "compared with 'opne'" in text


def test_an_inactive_user_gets_nothing(admin: Client) -> None:
    user("ada", is_active=False)
    Note.objects.create(title="one")
    for on, check in (("zoo.view_note", ""), ("zoo.add_note", "true")):
        text = tried(admin, form(True, on=on, with_check=check, test_user="ada"))
        assert "inactive" in text and "0 " in text


def test_trying_needs_the_right_to_save() -> None:
    stored = policy(True, name="Edited")
    viewer = logged_in("viewer", "auth_rls.view_policy")
    assert viewer.post(f"{TEST}?policy={stored.pk}", form(True)).status_code == 403
    changer = logged_in("changer", "auth_rls.change_policy", "auth_rls.view_policy")
    assert changer.post(f"{TEST}?policy={stored.pk}", form(True)).status_code == 200
    assert changer.post(TEST, form(True)).status_code == 403
    assert changer.get(TEST).status_code == 405
    page = viewer.get(f"{LIST}{stored.pk}/change/").content.decode()
    assert "auth-rls-test-button" not in page
    assert "auth-rls-test-button" in changer.get(f"{LIST}{stored.pk}/change/").content.decode()


def test_trying_is_refused_without_the_forms_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        user("root", is_superuser=True, is_staff=True),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    assert client.post(TEST, form(True)).status_code == 403


def test_a_policy_editor_does_not_come_to_see_rows_of_any_model() -> None:
    """The key of a session is the session."""
    Session.objects.create(session_key="k" * 32, session_data="", expire_date=timezone.now())
    editor = logged_in("editor", "auth_rls.change_policy", "auth_rls.add_policy")
    text = tried(editor, form(True, on="sessions.view_session"))
    assert "you may not view them" in text and "kkkk" not in text


def test_a_permission_on_topics_is_explained_and_tried_without_rows(admin: Client) -> None:
    on = "realtime.receive_broadcast"
    policy({"topic": "lobby"}, on=on, name="Lobby")
    asked = {"user": "", "claims": "", "permission": on, "pk": "lobby"}
    text = text_of(admin.get(EXPLAIN, asked))
    assert "Allowed" in text and "topic is “lobby”" in text
    assert list(admin.get(EXPLAIN, {**asked, "pk": "x" * 256}).context["form"].errors) == ["pk"]
    assert "about no rows of a table" in tried(admin, form({"topic": "lobby"}, on=on))
    assert "auth-rls-broken" not in admin.get(LIST).content.decode()


def test_a_broken_policy_is_shown_as_one(admin: Client) -> None:
    stored = policy({"gone": 1}, name="Old")
    page = admin.get(LIST).content.decode()
    assert 'class="auth-rls-state auth-rls-broken">broken' in page
    note = Note.objects.create(title="x")
    text = explained(admin, note)
    assert "Old broken" in text and "unknown column 'gone'" in text
    assert "0 of 1 rows visible (now: 0;" in tried(admin, form({"title": "y"}), stored)


def test_what_the_database_cannot_evaluate_is_shown_and_breaks_no_page(admin: Client) -> None:
    note = Note.objects.create(title="x")
    stored = policy({"score": 1}, name="Old")
    drop_the_score()
    page = admin.get(LIST).content.decode()
    assert 'class="auth-rls-state auth-rls-broken">broken' in page
    assert "the database cannot evaluate it" in page
    assert "The database cannot tell" in explained(admin, note)
    assert "The database cannot tell" in tried(admin, form({"title": "x"}), stored)
