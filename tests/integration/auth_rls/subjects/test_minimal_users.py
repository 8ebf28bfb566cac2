"""User models that know nothing of permissions, such as AbstractBaseUser alone: they hold none,
and policies for the others count."""

from __future__ import annotations

from typing import Any

import pytest

from auth_rls import Subject, check_add, visible
from auth_rls.access.authority import row_predicate
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.explain.askers import asker
from auth_rls.explain.questions import answer, question
from auth_rls.predicates.predicate import FALSE
from tests.support.policies import policy, user
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


class Minimal:
    """What AbstractBaseUser has, and no more."""

    is_active = True
    is_anonymous = False
    is_authenticated = True

    def __init__(self, account: Any) -> None:
        self.pk = account.pk

    def get_username(self) -> str:
        return "minimal"


@pytest.fixture
def minimal(monkeypatch: pytest.MonkeyPatch) -> Minimal:
    from django.contrib.auth import get_user_model
    from django.core.exceptions import FieldDoesNotExist

    account = user("ada", "zoo.view_note")
    options, get_field = get_user_model()._meta, get_user_model()._meta.get_field

    def without(name: str) -> Any:
        if name in ("user_permissions", "groups"):
            raise FieldDoesNotExist
        return get_field(name)

    monkeypatch.setattr(options, "get_field", without)
    return Minimal(account)


def test_policies_for_permission_holders_do_not_concern_them(minimal: Minimal) -> None:
    Note.objects.create(title="x")
    policy(True, audience="permission", name="holders")
    assert row_predicate(Subject.from_user(minimal), Note) == FALSE
    snapshot = PolicySnapshot.load()
    snapshot.prefetch([Subject.from_user(minimal)], Note)
    assert not snapshot.holds(Subject.from_user(minimal), Note, "view")
    policy(True, audience="authenticated", name="everybody")
    assert visible(Note.objects.all(), minimal).count() == 1


def test_their_writes_are_judged(minimal: Minimal) -> None:
    policy(with_check=True, on="zoo.add_note", audience="authenticated")
    check_add(Note(title="x"), minimal)


def test_has_perm_is_not_asked_of_them(minimal: Minimal) -> None:
    note = Note.objects.create(title="x")
    policy(True, audience="authenticated")
    who = asker(role="anon")
    asked = question(who, "zoo.view_note", str(note.pk))
    from dataclasses import replace

    found = answer(who, replace(asked, subject=Subject.from_user(minimal), user=minimal))
    assert found.allowed
    (door,) = [door for door in found.doors if door.door == "has_perm"]
    assert (door.allowed, door.note) == (None, "the user model has no permissions")
