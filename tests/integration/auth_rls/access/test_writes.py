"""The writing door: check_add and check_change before a save, and querysets that narrow
themselves."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F
from django.test import RequestFactory

import auth_rls
from auth_rls import Subject, check_add, check_change
from demo.models import Message
from tests.support.policies import policy, user
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db

MINE = {"owner": "$user.id"}


def test_what_no_policy_lets_add_is_refused_by_the_permissions_name() -> None:
    with pytest.raises(auth_rls.PolicyDenied) as refused:
        check_add(Note(title="a secret"), user())
    assert isinstance(refused.value, PermissionDenied)
    assert str(refused.value) == "No policy lets you add this note (zoo.add_note)."
    assert refused.value.permission == "zoo.add_note"


def test_an_add_is_judged_by_the_new_row() -> None:
    ada, bob = user("ada"), user("bob")
    policy(None, on="zoo.add_note", with_check=MINE)
    check_add(Note(title="x", owner=ada), ada)
    with pytest.raises(PermissionDenied):
        check_add(Note(title="x", owner=bob), ada)


def test_an_add_under_the_key_of_another_row_is_no_way_to_change_it() -> None:
    policy(True, on="zoo.add_note")
    taken = Note.objects.create(title="theirs")
    check_add(Note(pk=taken.pk + 1, title="x"), user())
    with pytest.raises(PermissionDenied):
        check_add(Note(pk=taken.pk, title="x"), user("bob"))


def test_a_change_is_judged_by_the_row_as_it_stands() -> None:
    ada, bob = user("ada"), user("bob")
    policy(MINE, on="zoo.change_note", with_check=True)
    note = Note.objects.create(title="x", owner=bob)
    note.owner = ada
    with pytest.raises(PermissionDenied, match=r"change this note \(zoo.change_note\)"):
        check_change(note, ada)
    check_change(note, bob)


def test_a_change_is_judged_by_the_new_values_too() -> None:
    ada, bob = user("ada"), user("bob")
    policy(MINE, on="zoo.change_note")
    note = Note.objects.create(title="x", owner=ada)
    note.owner = bob
    with pytest.raises(PermissionDenied, match=r"change the note to that \(zoo.change_note\)"):
        check_change(note, ada)


def test_a_refusal_names_no_value_of_the_hidden_row() -> None:
    policy(MINE, on="zoo.change_note")
    note = Note.objects.create(title="the launch code", body="0000")
    with pytest.raises(PermissionDenied) as refused:
        check_change(note, user())
    assert "launch" not in str(refused.value) and "0000" not in str(refused.value)


def test_fields_that_were_not_loaded_keep_their_stored_values() -> None:
    ada = user()
    policy(MINE, on="zoo.change_note")
    Note.objects.create(title="x", owner=ada)
    note = Note.objects.only("title").get()
    note.title = "y"
    check_change(note, ada)
    assert "owner_id" in note.get_deferred_fields()


def test_a_row_that_is_gone_or_unsaved_cannot_be_changed() -> None:
    policy(True, on="zoo.change_note")
    note = Note.objects.create(title="x")
    Note.objects.all().delete()
    for one in (note, Note(title="new")):
        with pytest.raises(PermissionDenied):
            check_change(one, user(f"user of {one}"))


def test_a_value_that_only_the_database_can_tell_satisfies_no_condition() -> None:
    policy(True, on="zoo.change_note", with_check={"score__lt": 10})
    note = Note.objects.create(title="x", score=1)
    note.score = F("score") + 1
    with pytest.raises(PermissionDenied):
        check_change(note, user())


def test_a_change_may_depend_on_other_tables() -> None:
    ada = user()
    red, blue = Team.objects.create(name="red"), Team.objects.create(name="blue")
    Member.objects.create(user=ada, team=red)
    mine = {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}
    policy({"team__in": mine}, on="zoo.change_note")
    note = Note.objects.create(title="x", team=red)
    with transaction.atomic():
        check_change(note, ada)
    note.team = blue
    with pytest.raises(PermissionDenied):
        check_change(note, ada)


def test_who_bypasses_policies_writes_anything_and_the_inactive_nothing() -> None:
    note = Note.objects.create(title="x")
    check_add(Note(title="y"), Subject.service())
    check_change(note, user("root", is_superuser=True))
    policy(True, on="zoo.add_note")
    with pytest.raises(PermissionDenied):
        check_add(Note(title="y"), user("gone", is_active=False))
    check_add(Note(title="y"), AnonymousUser())


def test_a_forgotten_subject_is_an_error_not_nobody() -> None:
    policy(True)
    for nobody in (None, "ada", 7):
        with pytest.raises(TypeError, match="a Subject, a Django user or a request"):
            auth_rls.visible(Note.objects.all(), nobody)


def test_a_request_without_a_user_says_which_middleware_is_missing() -> None:
    with pytest.raises(TypeError, match="SubjectMiddleware"):
        auth_rls.visible(Note.objects.all(), RequestFactory().get("/"))


def test_a_manager_narrows_to_subjects_users_and_requests() -> None:
    ada = user()
    policy({"author": "$user.id"}, on="demo.view_message")
    policy({"author": "$user.id"}, on="demo.delete_message", with_check=None)
    Message.objects.create(author=ada, body="mine")
    Message.objects.create(author=user("bob"), body="not mine")
    request = RequestFactory().get("/")
    request.user = ada
    for asker in (ada, request, Subject.from_user(ada)):
        assert [m.body for m in Message.objects.for_subject(asker)] == ["mine"]
    everything = Message.objects.filter(body__contains="mine")
    assert everything.for_subject(ada, "delete").count() == 1
    assert everything.for_subject(ada, "change").count() == 0
    assert everything.count() == 2
    assert ada.demo_messages.for_subject(ada).count() == 1


@pytest.mark.django_db(transaction=True)
async def test_async_callers_get_the_same_answers() -> None:
    ada = await sync_to_async(user)("ada")
    await sync_to_async(policy)(MINE)
    await sync_to_async(policy)(MINE, on="zoo.add_note")
    await sync_to_async(policy)(MINE, on="zoo.change_note")
    await sync_to_async(policy)({"author": "$user.id"}, on="demo.view_message")
    note = await Note.objects.acreate(title="mine", owner=ada)
    await Note.objects.acreate(title="not mine")
    await Message.objects.acreate(author=ada, body="hello")
    shown = await auth_rls.avisible(Note.objects.all(), ada)
    assert [note.title async for note in shown] == ["mine"]
    assert await (await auth_rls.apermitted(Note.objects.all(), ada, "delete")).acount() == 0
    assert await (await Message.objects.afor_subject(ada)).acount() == 1
    await auth_rls.acheck_add(Note(title="x", owner=ada), ada)
    await auth_rls.acheck_change(note, ada)
    note.owner = None
    with pytest.raises(PermissionDenied):
        await auth_rls.acheck_change(note, ada)
    with pytest.raises(PermissionDenied):
        await auth_rls.acheck_add(Note(title="x"), ada)
