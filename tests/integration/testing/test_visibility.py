"""Every door is asked about a row, and a failed assertion says why."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from auth_rls import Subject
from auth_rls.explain import doors
from realtime.models import Topic
from realtime.testing import SetupError, assert_hidden, assert_visible
from tests.support.policies import policy, user
from tests.support.topics import allow
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db


def test_a_row_that_a_policy_shows_is_visible_and_others_are_hidden() -> None:
    ada, bob = user("ada"), user("bob")
    policy({"owner": "$user.id"})
    note = Note.objects.create(title="a", owner=ada)
    assert_visible(ada, note)
    assert_hidden(bob, note)
    assert_hidden(AnonymousUser(), note)
    assert_visible(Subject.service(), note)
    assert_visible(user("root", is_superuser=True), note)


def test_a_failed_assertion_names_the_policy_the_clause_and_the_doors() -> None:
    ada, bob = user("ada"), user("bob")
    policy({"owner": "$user.id"}, name="owners see their notes")
    note = Note.objects.create(title="Milk", owner=ada)
    with pytest.raises(AssertionError) as failed:
        assert_visible(bob, note)
    text = str(failed.value)
    assert text.startswith(f"bob (user {bob.pk}), zoo.view_note on zoo.Note {note.pk} “Milk”: den")
    assert (
        "owners see their notes" in text and f"owner_id is {ada.pk}; $user.id is {bob.pk}" in text
    )
    for door in ("stream", "queryset", "has_perm", "REST"):
        assert any(line.split() == [door, "denied"] for line in text.splitlines())
    with pytest.raises(AssertionError, match="“owners see their notes” lets the row through"):
        assert_hidden(ada, note)


def test_without_a_policy_the_assertion_says_so() -> None:
    note = Note.objects.create(title="a")
    with pytest.raises(AssertionError, match=r"There is no policy on zoo\.view_note"):
        assert_visible(user(), note)


def test_other_permissions_are_named_whole_or_by_their_action() -> None:
    ada = user()
    policy(True, on="zoo.change_note")
    note = Note.objects.create(title="a")
    assert_visible(ada, note, "zoo.change_note")
    assert_visible(ada, note, "change")
    assert_hidden(ada, note, "delete")


def test_an_add_is_judged_by_the_values_of_the_instance() -> None:
    ada = user()
    policy(on="zoo.add_note", with_check={"is_public": False})
    assert_visible(ada, Note(title="a"), "add")
    assert_hidden(ada, Note(title="a", is_public=True), "add")


def test_the_stored_row_counts_and_not_what_the_instance_says() -> None:
    policy({"title": "shown"})
    note = Note.objects.create(title="hidden")
    note.title = "shown"
    assert_hidden(user(), note)


def test_an_inactive_user_is_hidden_everything() -> None:
    policy(True)
    assert_hidden(user(is_active=False), Note.objects.create(title="a"))


def test_a_topic_is_a_row_too() -> None:
    ada = user()
    allow("receive_broadcast", {"topic": "room"})
    assert_visible(ada, Topic(topic="room"))
    assert_hidden(ada, Topic(topic="room"), "send_broadcast")
    assert_hidden(ada, Topic(topic="other"), "realtime.receive_broadcast")


def test_a_model_that_is_not_published_is_judged_by_the_other_doors() -> None:
    ada = user()
    member = Member.objects.create(user=ada, team=Team.objects.create(name="t"))
    policy({"user": "$user.id"}, on="zoo.view_member")
    assert_visible(ada, member)


def test_an_instance_that_is_not_stored_is_an_error_of_the_test() -> None:
    with pytest.raises(SetupError, match=r"no key, so it is not stored: save\(\) it first"):
        assert_hidden(user(), Note(title="a"))


def test_a_permission_on_another_model_is_an_error_of_the_test() -> None:
    with pytest.raises(SetupError, match=r"'zoo\.view_team' is no permission on zoo\.Note"):
        assert_hidden(user(), Note(title="a"), "zoo.view_team")


def test_a_door_that_does_not_agree_fails_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doors.DOORS, "stream", lambda question: True)
    note = Note.objects.create(title="a")
    with pytest.raises(AssertionError, match="the doors do not agree"):
        assert_hidden(user(), note)
    with pytest.raises(AssertionError, match="the doors do not agree"):
        assert_visible(user("bob"), note)
