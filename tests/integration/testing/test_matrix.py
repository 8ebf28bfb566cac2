"""Who may do what to which rows, as a table."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from auth_rls import Subject
from auth_rls.explain import doors
from realtime.testing import policy_matrix
from tests.support.policies import policy, user
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


def test_the_table_has_a_line_for_each_row_and_action() -> None:
    ada, bob = user("ada"), user("bob")
    policy({"owner": "$user.id"})
    policy({"is_public": True}, audience="anyone")
    policy({"owner": "$user.id"}, on="zoo.change_note")
    rows = [
        Note.objects.create(title="mine", owner=ada),
        Note.objects.create(title="public", is_public=True),
    ]
    askers = [ada, bob, AnonymousUser(), Subject.service()]
    assert policy_matrix(askers, rows, ["view", "change"]).splitlines() == [
        "                           ada  bob  anon  service_role",
        "zoo.Note “mine”    view    yes  -    -     yes",
        "                   change  yes  -    -     yes",
        "zoo.Note “public”  view    yes  yes  yes   yes",
        "                   change  -    -    -     yes",
    ]


def test_names_can_be_given_and_equal_ones_are_told_apart() -> None:
    notes = [Note.objects.create(title="a"), Note.objects.create(title="a")]
    assert policy_matrix({"nobody": AnonymousUser()}, notes, ["view"]).splitlines() == [
        "                        nobody",
        "zoo.Note “a”      view  -",
        "zoo.Note “a” (2)  view  -",
    ]


def test_doors_that_do_not_agree_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doors.DOORS, "stream", lambda question: True)
    note = Note.objects.create(title="a")
    with pytest.raises(AssertionError, match="the doors do not agree"):
        policy_matrix([user()], [note], ["view"])
