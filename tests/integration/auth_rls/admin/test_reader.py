"""What members of staff learn from the pages beside the policies: nothing of rows, columns and
users that they may not view."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db.models import Q
from django.test import Client
from django.utils import timezone

from auth_rls import declare_policy, select
from auth_rls.models import Policy
from auth_rls.policy import reach
from demo.models import Message
from realtime import publish
from realtime.wal import published
from tests.support.policies import permission, policy, user
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]

LIST = "/admin/auth_rls/policy/"
EDITOR = ("auth_rls.add_policy", "auth_rls.change_policy", "auth_rls.view_policy")
OF_MEMBERS = {"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}}


@pytest.fixture
def excluding() -> Iterator[None]:
    """Notes are published without their body."""
    publish(Note, exclude=["body"])
    yield
    publish(Note)


def staff(name: str, *permissions: str) -> Client:
    client = Client()
    client.force_login(
        user(name, *permissions, is_staff=True),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


def page_of(response: Any) -> str:
    assert response.status_code == 200
    page = response.content.decode()
    return html.unescape(page[page.index('id="content-main"') :])


def explained(client: Client, pk: Any, **question: str) -> str:
    asked = {"user": "", "claims": "", "permission": "zoo.view_note", "pk": str(pk)}
    return page_of(client.get(f"{LIST}explain/", {**asked, **question}))


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


def tried(client: Client, data: dict[str, Any]) -> str:
    return page_of(client.post(f"{LIST}test/", data))


def verdicts(page: str) -> set[str]:
    """The verdicts that a page shows: ok, no, or unknown."""
    return set(re.findall(r"auth-rls-state auth-rls-(ok|no|unknown)", page))


@pytest.mark.parametrize(
    "using",
    [
        True,
        {"session_key__startswith": "k"},
        {"not": {"session_key__startswith": "k"}},
        {"any": [{"session_key": "x"}, {"expire_date__isnull": False}]},
    ],
)
def test_counts_tell_an_editor_nothing_of_a_model_out_of_reach(using: Any) -> None:
    Session.objects.create(session_key="k" * 32, session_data="", expire_date=timezone.now())
    text = tried(staff("editor", *EDITOR), form(using, on="sessions.view_session"))
    assert "cannot be tested" in text and "now:" not in text and "visible" not in text


@pytest.mark.parametrize(
    "source", ["sessions.Session", "admin.LogEntry", "auth.Group", "auth_rls.Policy"]
)
def test_a_select_reaches_open_models_only(source: str) -> None:
    root = staff("root", "zoo.view_note", *EDITOR)
    using = {"title__in": {"select": "pk", "from": source}}
    response = root.post(f"{LIST}add/", form(using))
    assert f"{source} is not open to policies" in str(response.context["adminform"].form.errors)
    stored = policy(using)
    assert "is not open to policies" in str(stored.problem())


def test_a_stored_policy_on_a_closed_model_denies_and_a_declared_one_holds() -> None:
    from auth_rls import Subject, visible

    Session.objects.create(session_key="k" * 32, session_data="", expire_date=timezone.now())
    nobody = Subject.anonymous()
    stored = policy(True, on="sessions.view_session")
    assert not visible(Session.objects.all(), nobody).exists()
    stored.delete()
    declare_policy("sessions", "sessions.view_session", audience="anyone", using=True)
    assert visible(Session.objects.all(), nobody).exists()


def test_a_model_named_in_the_settings_is_open(settings: Any) -> None:
    settings.AUTH_RLS = {"POLICY_MODELS": ["Sessions.session"]}
    assert policy({"session_key": "k"}, on="sessions.view_session").problem() is None
    settings.AUTH_RLS = {}
    assert "is not open" in str(Policy.objects.get().problem())


def test_policies_are_changed_by_those_who_hold_the_permission() -> None:
    editor = staff("editor", "zoo.view_note", "auth_rls.delete_policy", *EDITOR)
    stored = policy(True, on="zoo.delete_note", mode="restrictive", name="Nothing goes")
    change = f"{LIST}{stored.pk}/change/"
    for data in (form(False, on="zoo.delete_note"), form(False, on="zoo.view_note")):
        response = editor.post(change, data)
        assert response.status_code == 200 and response.context["adminform"].form.errors
    for action in ("disable", "delete_selected"):
        chosen = {"action": action, "_selected_action": [stored.pk], "post": "yes"}
        editor.post(LIST, chosen)
    assert editor.post(f"{LIST}{stored.pk}/delete/", {"post": "yes"}).status_code == 403
    stored.refresh_from_db()
    assert stored.enabled and stored.using is True
    assert editor.post(f"{LIST}add/", form({"is_public": True})).status_code == 302


def test_a_policy_that_reads_another_table_asks_for_a_right_on_that() -> None:
    editor = staff("editor", "zoo.view_note", *EDITOR)
    response = editor.post(f"{LIST}add/", form(OF_MEMBERS))
    assert "You may not view all members." in str(response.context["adminform"].form.errors)
    both = staff("both", "zoo.view_note", "zoo.view_member", *EDITOR)
    assert both.post(f"{LIST}add/", form(OF_MEMBERS)).status_code == 302


@pytest.mark.usefixtures("excluding")
@pytest.mark.parametrize("claim", ["a", "s", "secret"])
def test_claims_do_not_read_a_column_that_is_not_published(claim: str) -> None:
    note = Note.objects.create(title="x", body="secret", is_public=True)
    policy({"is_public": True}, name="public")
    policy({"body": "$claims.guess"}, name="body", mode="restrictive")
    viewer = staff("viewer", "auth_rls.view_policy", "zoo.view_note")
    text = explained(viewer, note.pk, claims=json.dumps({"guess": claim}))
    assert "You may not view the column body of notes." in text and not verdicts(text)


@pytest.mark.usefixtures("excluding")
def test_an_editor_does_not_count_by_a_column_that_is_not_published() -> None:
    Note.objects.create(title="x", body="secret")
    editor = staff("editor", "zoo.view_note", *EDITOR)
    for using in ({"body__startswith": "s"}, {"not": {"body__startswith": "s"}}):
        text = tried(editor, form(using))
        assert "You may not view the column body of notes." in text and "now:" not in text


def test_a_column_that_the_admin_shows_may_be_asked_about() -> None:
    message = Message.objects.create(author=user("ada"), body="secret", is_public=True)
    policy(True, on="demo.view_message")
    policy({"body": "$claims.guess"}, on="demo.view_message")
    asked = {"permission": "demo.view_message", "claims": '{"guess": "secret"}'}
    viewer = staff("viewer", "auth_rls.view_policy", "demo.view_message")
    publish(Message, exclude=["body"])
    try:
        assert "ok" in verdicts(explained(viewer, message.pk, **asked))
    finally:
        publish(Message)


def test_the_rows_that_the_admin_hides_are_neither_explained_nor_counted() -> None:
    """The demo's admin lists only what policies show."""
    ada = user("ada")
    shown = Message.objects.create(author=ada, body="shown", is_public=True)
    hidden = Message.objects.create(author=ada, body="hidden")
    policy({"is_public": True}, on="demo.view_message")
    viewer = staff("viewer", "auth_rls.view_policy", "demo.view_message")
    asked = {"permission": "demo.view_message"}
    assert "ok" in verdicts(explained(viewer, shown.pk, **asked))
    page = explained(viewer, hidden.pk, **asked)
    assert "You may not view this row." in page and not verdicts(page)
    # A row that is not there is answered like one that is hidden.
    absent = explained(viewer, hidden.pk + 1, **asked)
    assert absent.replace(f'value="{hidden.pk + 1}"', f'value="{hidden.pk}"') == page


def test_a_hidden_row_has_no_verdict_whatever_the_claims() -> None:
    note = Note.objects.create(title="Secret soup", score=41)
    policy({"score__gt": 40}, name="high")
    policy({"title__in": "$claims.titles"}, name="guessed")
    viewer = staff("viewer", "auth_rls.view_policy")
    pages = {
        explained(viewer, pk, claims=claims)
        for pk in (note.pk, note.pk + 1)
        for claims in ('{"titles": ["Secret soup"]}', '{"titles": []}')
    }
    assert all(not verdicts(page) and "is withheld" in page for page in pages)
    # The form shows what was typed; the answers are one.
    assert len({page[page.index("auth-rls-answer") :] for page in pages}) == 1


@pytest.mark.parametrize("name", ["ada", "eve"])
def test_a_user_out_of_sight_is_explained_like_one_who_does_not_exist(name: str) -> None:
    user("ada", email="ada@example.org")
    note = Note.objects.create(title="ada@example.org", is_public=True)
    policy({"title": "$user.email"})
    viewer = staff("viewer", "zoo.view_note", *EDITOR)
    text = explained(viewer, note.pk, user=name)
    assert "You may not view other users." in text and not verdicts(text)
    assert "You may not view other users." in tried(viewer, form(True, test_user=name))


def test_the_claims_of_a_user_out_of_sight_are_not_explained() -> None:
    ada = user("ada", email="ada@example.org")
    note = Note.objects.create(title="ada@example.org")
    policy({"title": "$user.email"})
    viewer = staff("viewer", "zoo.view_note", *EDITOR)
    for sub in (str(ada.pk), str(ada.pk + 1_000)):
        text = explained(viewer, note.pk, claims=json.dumps({"sub": sub}))
        assert "You may not view other users." in text and not verdicts(text)
    assert verdicts(explained(viewer, note.pk, claims="{}"))
    assert verdicts(explained(viewer, note.pk, user="viewer"))


def test_memberships_out_of_sight_decide_nothing_that_is_shown() -> None:
    team = Team.objects.create(name="Stage")
    viewer = staff("viewer", "auth_rls.view_policy", "zoo.view_note")
    Member.objects.create(user=user("ada"), team=team)
    note = Note.objects.create(title="x", team=team, is_public=True)
    policy({"is_public": True}, name="public")
    policy(OF_MEMBERS, name="members")
    text = explained(viewer, note.pk)
    assert "You may not view all members." in text and not verdicts(text)


def test_memberships_behind_topics_are_withheld_too() -> None:
    Member.objects.create(user=user("ada"), team=Team.objects.create(name="Stage"))
    rooms = {"select": "team", "from": "zoo.Member", "where": {"user": "$claims.who"}}
    policy({"topic__in": {**rooms, "prefix": "room:"}}, on="realtime.receive_broadcast")
    viewer = staff("viewer", "auth_rls.view_policy")
    text = explained(viewer, "room:1", permission="realtime.receive_broadcast", claims='{"who": 1}')
    assert "You may not view all members." in text and not verdicts(text)


def test_policies_in_code_that_read_closed_models_are_not_answered_for() -> None:
    declare_policy(
        "of sessions",
        "zoo.view_note",
        audience="anyone",
        using=Q(title__in=select("session_key", "sessions.Session")),
    )
    note = Note.objects.create(title="k" * 32, is_public=True)
    policy({"is_public": True})
    viewer = staff("viewer", "zoo.view_note", *EDITOR)
    text = explained(viewer, note.pk)
    assert "You may not view all sessions." in text and not verdicts(text)
    assert "now:" not in tried(viewer, form(True))


def test_permissions_of_other_models_are_still_published_as_before() -> None:
    assert published.published_columns(Note) and not published.published_columns(Permission)


@pytest.mark.parametrize("using", [{"session_key__startswith": "k"}, {"session_key": "k"}])
def test_an_editor_does_not_count_by_the_secrets_of_a_model_in_the_settings(
    settings: Any, using: Any
) -> None:
    settings.AUTH_RLS = {"POLICY_MODELS": ["sessions.Session"]}
    Session.objects.create(session_key="k" * 32, session_data="", expire_date=timezone.now())
    editor = staff("editor", "sessions.view_session", *EDITOR)
    text = tried(editor, form(using, on="sessions.view_session"))
    assert "You may not view the column session_key of sessions." in text and "now:" not in text
    text = tried(editor, form({"expire_date__isnull": False}, on="sessions.view_session"))
    assert "now:" in text


def test_a_secret_of_a_user_is_not_read_by_comparing_it_with_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The right to view users does not show their secrets. A policy that compares a secret with
    rows of one's own must not tell it either."""
    monkeypatch.setattr(reach, "is_secret", lambda field: field.name == "last_name")
    user("ada", last_name="s3cret")
    Note.objects.create(title="s")
    policy({"title__lt": "$user.last_name"}, mode="restrictive", name="guessed")
    editor = staff("editor", "zoo.view_note", "auth.view_user", *EDITOR)
    shown = admin.site.get_model_admin(User)
    admin.site.unregister(User)
    try:
        tests = [
            tried(editor, form({"title__lt": "$user.last_name"}, test_user="ada")),
            explained(editor, Note.objects.get().pk, user="ada"),
        ]
    finally:
        admin.site.register(User, type(shown))
    for text in tests:
        assert "You may not view the column last_name of users." in text
        assert "now:" not in text and not verdicts(text) and "s3cret" not in text
