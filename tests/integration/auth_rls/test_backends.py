"""The object door: has_perm and ahas_perm with an instance."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db.models import F

from auth_rls import visible
from auth_rls.backends import PolicyBackend
from tests.support.policies import fresh, policy, user
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db

MINE = {"owner": "$user.id"}


def test_policies_decide_about_an_object() -> None:
    ada, bob = user("ada", "zoo.view_note"), user("bob", "zoo.view_note")
    note = Note.objects.create(title="x", owner=ada)
    policy(MINE, audience="permission")
    assert ada.has_perm("zoo.view_note", note)
    assert not bob.has_perm("zoo.view_note", note)


def test_without_an_object_the_permission_itself_is_asked_for() -> None:
    ada = user("ada", "zoo.view_note")
    assert ada.has_perm("zoo.view_note")
    assert not user("bob").has_perm("zoo.view_note")
    assert not PolicyBackend().has_perm(ada, "zoo.view_note")


def test_without_a_policy_the_permission_opens_no_object() -> None:
    ada = user("ada", "zoo.view_note")
    assert not ada.has_perm("zoo.view_note", Note.objects.create(title="x", owner=ada))


def test_superusers_may_do_everything() -> None:
    assert user(is_superuser=True).has_perm("zoo.delete_note", Note.objects.create(title="x"))


def test_inactive_users_may_do_nothing() -> None:
    policy(True)
    note = Note.objects.create(title="x")
    inactive = user("ada", is_active=False)
    assert not inactive.has_perm("zoo.view_note", note)
    assert not PolicyBackend().has_perm(inactive, "zoo.view_note", note)


def test_the_anonymous_may_what_anyone_may() -> None:
    policy({"is_public": True})
    shown, hidden = Note.objects.create(title="a", is_public=True), Note.objects.create(title="b")
    assert AnonymousUser().has_perm("zoo.view_note", shown)
    assert not AnonymousUser().has_perm("zoo.view_note", hidden)


@pytest.mark.parametrize(
    "perm",
    ["zoo.view_team", "auth.view_note", "view_note", "zoo.frame_note", "zoo.View_note", "", "zoo."],
)
def test_a_permission_of_another_model_opens_nothing(perm: str) -> None:
    policy(True)
    policy(True, on="zoo.view_team")
    assert not user().has_perm(perm, Note.objects.create(title="x"))


@pytest.mark.parametrize("obj", ["a string", 7, Note, object()])
def test_what_is_no_model_instance_is_refused(obj: Any) -> None:
    policy(True)
    assert not user().has_perm("zoo.view_note", obj)


def test_the_stored_row_decides_not_the_instance() -> None:
    ada = user()
    policy(MINE)
    policy(MINE, on="zoo.change_note")
    note = Note.objects.create(title="x")
    note.owner = ada
    assert not ada.has_perm("zoo.view_note", note)
    assert not ada.has_perm("zoo.change_note", note)
    note.save()
    note.owner = None
    assert ada.has_perm("zoo.change_note", note)


def test_pending_values_are_not_the_object_doors_matter() -> None:
    ada = user()
    policy(MINE, on="zoo.change_note", with_check={"is_public": False})
    note = Note.objects.create(title="x", owner=ada)
    note.is_public = True
    assert ada.has_perm("zoo.change_note", note)


def test_a_proxy_is_judged_as_its_table() -> None:
    class Memo(Note):
        class Meta:
            proxy = True
            app_label = "zoo"

    try:
        policy(MINE)
        ada = user()
        Note.objects.create(title="mine", owner=ada)
        Note.objects.create(title="not mine")
        assert [memo.title for memo in visible(Memo.objects.all(), ada)] == ["mine"]
        mine = Memo.objects.get(title="mine")
        assert ada.has_perm("zoo.view_note", mine)
        assert not ada.has_perm("zoo.view_memo", mine)
    finally:
        del apps.all_models["zoo"]["memo"]
        apps.clear_cache()


def test_rows_that_are_not_there_cannot_be_seen() -> None:
    policy(True)
    ada = user()
    assert not ada.has_perm("zoo.view_note", Note(title="unsaved"))
    gone = Note.objects.create(title="gone")
    Note.objects.all().delete()
    assert not ada.has_perm("zoo.view_note", gone)


def test_an_add_is_decided_by_the_instances_values() -> None:
    ada, bob = user("ada"), user("bob")
    policy(None, on="zoo.add_note", with_check=MINE, audience="authenticated")
    assert ada.has_perm("zoo.add_note", Note(title="x", owner=ada))
    assert not ada.has_perm("zoo.add_note", Note(title="x", owner=bob))
    assert not ada.has_perm("zoo.add_note", Note(title="x"))
    assert not AnonymousUser().has_perm("zoo.add_note", Note(title="x", owner=ada))


def test_an_add_without_a_check_uses_using() -> None:
    ada = user()
    policy({"score__gte": 5}, on="zoo.add_note")
    assert ada.has_perm("zoo.add_note", Note(title="x", score="7"))
    assert not ada.has_perm("zoo.add_note", Note(title="x", score=4))


def test_an_add_may_depend_on_other_tables() -> None:
    ada = user()
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    Member.objects.create(user=ada, team=red)
    mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    policy(None, on="zoo.add_note", with_check={"team__in": mine})
    assert ada.has_perm("zoo.add_note", Note(title="x", team=red))
    assert not ada.has_perm("zoo.add_note", Note(title="x", team=blue))


@pytest.mark.parametrize("score", [F("id"), "no number", 2**70])
def test_values_only_the_database_knows_or_would_refuse_add_nothing(score: Any) -> None:
    anything = {"any": [{"score__gte": 0}, {"score__lt": 0}, {"score__isnull": True}]}
    policy(anything, on="zoo.add_note")
    assert not user().has_perm("zoo.add_note", Note(title="x", score=score))


def test_decimals_are_added_as_they_will_be_stored() -> None:
    policy({"price": "0.13"}, on="zoo.add_note")
    assert user().has_perm("zoo.add_note", Note(title="x", price="0.1251"))


@pytest.mark.django_db(transaction=True)
async def test_async_callers_get_the_same_answer() -> None:
    ada = await sync_to_async(user)("ada")
    note = await Note.objects.acreate(title="x", owner=ada)
    other = await Note.objects.acreate(title="y")
    await sync_to_async(policy)(MINE)
    await sync_to_async(policy)(MINE, on="zoo.add_note")
    ada = await sync_to_async(fresh)(ada)
    assert await ada.ahas_perm("zoo.view_note", note)
    assert not await ada.ahas_perm("zoo.view_note", other)
    assert not await ada.ahas_perm("zoo.change_note", note)
    assert await ada.ahas_perm("zoo.add_note", Note(title="z", owner=ada))
    assert not await AnonymousUser().ahas_perm("zoo.view_note", note)
    assert not await PolicyBackend().ahas_perm(ada, "zoo.view_note")
