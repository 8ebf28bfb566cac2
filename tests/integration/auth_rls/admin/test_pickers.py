"""What is offered to pick from beside the policies: users, permissions and rows that the reader may
view, and nothing that tells of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from realtime import publish
from realtime.wal import published
from tests.support.policies import permission, policy, user
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing_declared")]

LIST = "/admin/auth_rls/policy/"


def staff(name: str, *permissions: str, **fields: Any) -> Client:
    client = Client()
    client.force_login(
        user(name, *permissions, is_staff=True, **fields),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    return client


@pytest.fixture
def admin(db: None) -> Client:
    return staff("root", is_superuser=True)


@pytest.fixture
def excluding() -> Iterator[None]:
    """Notes are published without their body."""
    publish(Note, exclude=["body"])
    yield
    publish(Note)


def found(client: Client, what: str, term: str = "", **query: str) -> list[str]:
    """The ids of what is offered."""
    answer = client.get(f"{LIST}{what}/", {"term": term, **query})
    assert answer.status_code == 200
    return [each["id"] for each in answer.json()["results"]]


def rows(client: Client, term: str = "", on: str = "zoo.view_note") -> list[str]:
    return found(client, "rows", term, permission=on)


def test_users_are_found_by_name_and_by_what_else_they_are_called(admin: Client) -> None:
    user("ada", first_name="Ada", last_name="Osei", email="ada@example.org")
    user("ben", first_name="Ben")
    assert found(admin, "users") == ["ada", "ben", "root"]
    assert found(admin, "users", "osei") == found(admin, "users", "example.org") == ["ada"]
    assert found(admin, "users", "ada ben") == []
    answer = admin.get(f"{LIST}users/", {"term": "ada"}).json()
    assert answer["results"][0]["text"] == "ada · Ada Osei ada@example.org"


@pytest.fixture
def users_by_address() -> Iterator[None]:
    """Users as a model of a project's own has them that log in by their address."""
    User.USERNAME_FIELD = "email"
    yield
    User.USERNAME_FIELD = "username"


@pytest.mark.usefixtures("users_by_address")
def test_users_go_by_what_their_model_logs_them_in_by(admin: Client) -> None:
    user("ada", email="ada@example.org", last_name="Osei")
    assert found(admin, "users", "osei") == ["ada@example.org"]
    page = admin.get(f"{LIST}explain/").content.decode()
    assert "By email address or primary key" in page
    asked = {"user": "ada@example.org", "permission": "zoo.view_note", "pk": "1", "claims": ""}
    assert "user" not in admin.get(f"{LIST}explain/", asked).context["form"].errors


def test_users_are_offered_to_those_who_may_view_them() -> None:
    user("ada")
    viewer = staff("viewer", "auth_rls.view_policy")
    assert found(viewer, "users") == found(viewer, "users", "ada") == []
    assert "ada" in found(staff("clerk", "auth_rls.view_policy", "auth.view_user"), "users")


@pytest.fixture
def users_without_admin(settings: Any) -> Iterator[None]:
    """Nothing shows or opens the columns of users, beside the field that they log in by."""
    settings.AUTH_RLS = {"POLICY_MODELS": []}
    publish(User, columns=["username"])
    kept = site.get_model_admin(User)
    site.unregister(User)
    yield
    site.register(User, type(kept))
    published.declarations.pop("auth.user")


@pytest.mark.usefixtures("users_without_admin")
def test_users_are_not_found_by_columns_out_of_sight() -> None:
    user("ada", email="ada@example.org", last_name="Osei")
    clerk = staff("clerk", "auth_rls.view_policy", "auth_rls.change_policy", "auth.view_user")
    assert found(clerk, "users", "ada") == ["ada"]
    assert found(clerk, "users", "example.org") == found(clerk, "users", "osei") == []
    assert "example.org" not in clerk.get(f"{LIST}users/", {"term": "ada"}).content.decode()


def test_permissions_are_offered_by_their_code(admin: Client) -> None:
    assert found(admin, "permissions", "zoo.view_note", by="code") == ["zoo.view_note"]
    assert "realtime.receive_broadcast" in found(admin, "permissions", "receive", by="code")


def test_rows_are_found_by_key_and_by_text(admin: Client) -> None:
    first = Note.objects.create(title="Rig the rain cover")
    second = Note.objects.create(title="b", body="under the rain")
    assert rows(admin) == [str(first.pk), str(second.pk)]
    assert rows(admin, "RAIN") == [str(first.pk), str(second.pk)]
    assert rows(admin, "rig") == rows(admin, str(first.pk)) == [str(first.pk)]
    assert rows(admin, "nowhere") == rows(admin, "9" * 40) == []


@pytest.mark.parametrize("on", ["", "zoo", "zoo.view_nothing", "realtime.view_presence"])
def test_without_a_permission_on_rows_none_are_offered(admin: Client, on: str) -> None:
    Note.objects.create(title="a")
    assert rows(admin, on=on) == []


def test_answers_come_in_pages(admin: Client) -> None:
    Note.objects.bulk_create(Note(title=f"note {n}") for n in range(21))
    query = {"term": "note", "permission": "zoo.view_note"}
    first = admin.get(f"{LIST}rows/", query).json()
    assert len(first["results"]) == 20 and first["pagination"]["more"]
    second = admin.get(f"{LIST}rows/", {**query, "page": "2"}).json()
    assert len(second["results"]) == 1 and not second["pagination"]["more"]
    assert admin.get(f"{LIST}rows/", {**query, "page": "-x"}).status_code == 200


@pytest.mark.parametrize("page", ["1" + "0" * 30, "9" * 5000, "999999999"])
def test_behind_the_last_page_nothing_is_offered(admin: Client, page: str) -> None:
    Note.objects.create(title="note")
    assert rows(admin, "note") != []
    for what in ("rows", "users", "permissions"):
        assert found(admin, what, permission="zoo.view_note", page=page) == []


def test_rows_out_of_sight_are_not_offered() -> None:
    shown = Note.objects.create(title="public", is_public=True)
    hidden = Note.objects.create(title="hidden")
    policy({"is_public": True}, audience="authenticated")
    viewer = staff("viewer", "auth_rls.view_policy")
    assert rows(viewer) == rows(viewer, "public") == []
    reader = staff("reader", "auth_rls.view_policy", "zoo.view_note")
    assert rows(reader) == rows(reader, "public") == [str(shown.pk)]
    assert rows(reader, "hidden") == rows(reader, str(hidden.pk)) == []


def test_rows_of_a_model_out_of_reach_are_not_offered() -> None:
    """The key of a session is the session."""
    Session.objects.create(session_key="k" * 32, session_data="", expire_date=timezone.now())
    editor = staff("editor", "auth_rls.add_policy", "auth_rls.view_policy")
    assert rows(editor, on="sessions.view_session") == []
    assert rows(editor, "k" * 32, on="sessions.view_session") == []


@pytest.mark.usefixtures("excluding")
def test_rows_are_not_found_by_a_column_out_of_sight() -> None:
    note = Note.objects.create(title="a", body="secret")
    editor = staff("editor", "auth_rls.change_policy", "auth_rls.view_policy", "zoo.view_note")
    assert rows(editor, "a") == [str(note.pk)]
    assert rows(editor, "secret") == rows(editor, "sec") == []


@pytest.mark.parametrize("shown", [True, False])
def test_the_text_of_a_row_is_not_shown_where_it_may_hold_a_hidden_column(shown: bool) -> None:
    publish(Note) if shown else publish(Note, exclude=["title"])
    try:
        note = Note.objects.create(title="of a hidden column")
        editor = staff("editor", "auth_rls.change_policy", "auth_rls.view_policy", "zoo.view_note")
        policy(True, name="All", audience="anyone")
        asked = {"permission": "zoo.view_note", "pk": str(note.pk), "user": "", "claims": ""}
        edited = {
            **{"name": "New", "audience": "anyone", "mode": "permissive", "using": "true"},
            **{"with_check": "", "enabled": "on", "test_user": ""},
            "permission": str(permission("zoo.view_note").pk),
        }
        stored = policy(True, name="New", audience="anyone")
        for page in (
            editor.get(f"{LIST}rows/", {"term": str(note.pk), **asked}),
            editor.get(f"{LIST}explain/", asked),
            editor.post(f"{LIST}test/?policy={stored.pk}", edited),
        ):
            text = page.content.decode()
            assert str(note.pk) in text
            assert ("of a hidden column" in text) is shown
    finally:
        publish(Note)


def test_no_row_is_found_by_a_secret() -> None:
    """The admin of users names the password among its fields, and shows a summary of it."""
    ada = user("ada", password="pbkdf2_sha256$1$salt$secrethash")
    for client in (
        staff("clerk", "auth_rls.view_policy", "auth.view_user"),
        staff("root", is_superuser=True),
    ):
        assert rows(client, "ada", on="auth.view_user") == [str(ada.pk)]
        assert rows(client, "secrethash", on="auth.view_user") == []


@pytest.mark.parametrize("what", ["users", "rows", "permissions", "columns"])
def test_nothing_is_offered_to_other_staff(client: Client, what: str) -> None:
    assert client.get(f"{LIST}{what}/").status_code == 302
    assert staff("other", "zoo.view_note").get(f"{LIST}{what}/").status_code == 403
