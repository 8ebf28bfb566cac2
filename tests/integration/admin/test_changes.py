"""The page "Changes": who, when, what, from which value to which, and nothing that is hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client, override_settings
from django.urls import path

import realtime
from realtime.admin import ChangesMixin
from realtime.models import WalEntry
from tests.support.histories import with_history
from tests.support.log import number_all
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.usefixtures("wal")

site = admin.AdminSite()


@admin.register(Note, site=site)
class NoteAdmin(ChangesMixin, admin.ModelAdmin):
    """As a project writes it."""


@admin.register(Team, site=site)
class TeamAdmin(ChangesMixin, admin.ModelAdmin):
    """A second model."""

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).exclude(name="not in the list")


@admin.register(Member, site=site)
class MemberAdmin(ChangesMixin, admin.ModelAdmin):
    """A model that is not published."""


urlpatterns = [path("site/", site.urls)]


@pytest.fixture(autouse=True)
def urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def root(transactional_db: None) -> User:
    return User.objects.create_superuser("root")


def of(user: User, url: str, status: int = 200) -> str:
    client = Client()
    client.force_login(user)
    response = client.get(url)
    assert response.status_code == status, response.status_code
    return response.content.decode()


def changes_url(row: Any, key: Any = None) -> str:
    return f"/site/zoo/{row._meta.model_name}/{key or row.pk}/changes/"


def staff(name: str, *codenames: str) -> User:
    made = User.objects.create_user(name, is_staff=True)
    made.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return made


def changed_note(**fields: Any) -> Note:
    row = Note.objects.create(title="first", **fields)
    with realtime.actor("nightly job"):
        Note.objects.filter(pk=row.pk).update(title="second")
    number_all()
    return row


def test_the_page_shows_who_when_what_and_both_values(root: User) -> None:
    row = changed_note()
    page = of(root, changes_url(row))
    assert "nightly job" in page and "seq 2" in page
    assert "<del>first</del>" in page and "<ins>second</ins>" in page
    (change, _) = realtime.history(row)
    assert f'datetime="{change.commit_timestamp}"' in page


def test_the_object_page_links_to_it(root: User) -> None:
    row = changed_note()
    assert changes_url(row) in of(root, f"/site/zoo/note/{row.pk}/change/")
    assert "/changes/" not in of(root, "/site/zoo/note/add/")
    with_no_log = Member.objects.create(user=root, team=Team.objects.create(name="a"))
    assert "/changes/" not in of(root, f"/site/zoo/member/{with_no_log.pk}/change/")
    of(root, changes_url(with_no_log), 404)


def test_values_are_escaped_and_cut(root: User) -> None:
    row = changed_note(body="<script>alert(1)</script>" + "x" * 5_000)
    page = of(root, changes_url(row))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "x" * 600 not in page and "more characters" in page


def test_changes_by_one_actor_can_be_shown_alone(root: User) -> None:
    row = changed_note()
    page = of(root, f"{changes_url(row)}?actor=nightly%20job")
    assert "<ins>second</ins>" in page and page.count('realtime-change"') == 1
    assert "<ins>second</ins>" not in of(root, f"{changes_url(row)}?actor=%3Cb%3E")


def test_actors_are_named_to_those_who_may_view_users(
    root: User, granted: Callable[..., Any]
) -> None:
    granted("view_note", using=True, audience="anyone")
    writer = User.objects.create(username="the writer")
    with realtime.actor(writer):
        row = Note.objects.create(title="a")
    number_all()
    assert f"the writer ({writer.pk})" in of(root, changes_url(row))
    page = of(staff("ada", "view_note"), changes_url(row))
    assert "the writer" not in page and f">{writer.pk}<" in page


def test_pages_are_bounded(root: User) -> None:
    row = Note.objects.create(title="0")
    for number in range(30):
        Note.objects.filter(pk=row.pk).update(title=f"title {number}")
    number_all()
    first = of(root, changes_url(row))
    assert "title 29" in first and ">title 2<" not in first and "?p=2" in first
    second = of(root, f"{changes_url(row)}?p=2")
    assert ">title 2<" in second and "?p=3" not in second
    for odd in ("0", "-1", "x", "99999999", "99"):
        of(root, f"{changes_url(row)}?p={odd}")


def test_without_the_permission_nobody_gets_the_page(granted: Callable[..., Any]) -> None:
    granted("view_note", using=True, audience="anyone")
    row = changed_note()
    of(staff("ada"), changes_url(row), 403)
    of(User.objects.create(username="no staff"), changes_url(row), 302)
    assert "<ins>second</ins>" in of(staff("bob", "view_note"), changes_url(row))


def test_without_policies_nothing_is_shown() -> None:
    row = changed_note()
    page = of(staff("ada", "view_note", "change_note"), changes_url(row))
    assert "No change is kept that you may see" in page
    assert "<ins>" not in page and "<del>" not in page


def test_images_that_policies_hide_are_not_shown(granted: Callable[..., Any]) -> None:
    granted("view_note", using={"title": "second"}, audience="anyone")
    page = of(staff("ada", "view_note"), changes_url(changed_note()))
    assert "<ins>second</ins>" in page and "<del>" not in page and ">first<" not in page


def test_columns_that_are_not_published_are_not_shown(root: User) -> None:
    row = changed_note(body="kept secret")
    with with_history(Note, exclude=["body"]):
        page = of(root, changes_url(row))
    assert "kept secret" not in page and "<ins>second</ins>" in page


def test_what_the_site_does_not_list_has_no_page(root: User) -> None:
    hidden = Team.objects.create(name="not in the list")
    number_all()
    ada = staff("ada", "view_team")
    assert "/changes/" not in of(ada, changes_url(hidden), 404)


def test_changes_of_a_deleted_object_are_for_those_whom_nothing_binds(
    root: User, granted: Callable[..., Any]
) -> None:
    granted("view_note", using=True, audience="anyone")
    row = changed_note()
    url = changes_url(row)
    row.delete()
    number_all()
    page = of(root, url)
    assert "Deleted" in page and "<del>second</del>" in page
    of(staff("ada", "view_note"), url, 404)
    of(root, "/site/zoo/note/not-a-key/changes/", 404)


def test_a_change_leads_to_the_others_of_its_transaction(
    root: User, granted: Callable[..., Any]
) -> None:
    granted("view_note", using=True, audience="anyone")
    granted("view_team", using={"name": "shown"}, audience="anyone", name="teams")
    with transaction.atomic():
        Team.objects.create(name="shown")
        Team.objects.create(name="hidden")
        Team.objects.create(name="not in the list")
        row = Note.objects.create(title="mine")
    Team.objects.create(name="later")
    number_all()
    seq = realtime.history(row)[0].seq
    link = f"{changes_url(row)}{seq}/"
    assert link in of(root, changes_url(row))
    page = of(root, link)
    assert "<ins>hidden</ins>" in page and "<ins>mine</ins>" in page and "later" not in page
    page = of(staff("ada", "view_note", "view_team"), link)
    assert "<ins>shown</ins>" in page and "<ins>mine</ins>" in page
    assert "<ins>hidden<" not in page and "not in the list" not in page
    page = of(staff("bob", "view_note"), link)
    assert "shown" not in page and "<ins>mine</ins>" in page
    of(root, f"{changes_url(row)}{seq - 1}/", 404)


def test_where_an_entry_does_not_name_its_transaction_none_is_linked(root: User) -> None:
    row = changed_note()
    assert f"{changes_url(row)}2/" in of(root, changes_url(row))
    WalEntry.objects.update(txid=None)
    assert f"{changes_url(row)}2/" not in of(root, changes_url(row))
    of(root, f"{changes_url(row)}2/", 404)
