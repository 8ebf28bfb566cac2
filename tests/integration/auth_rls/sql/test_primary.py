"""Where a router sends reads to a replica, decisions are read from the primary all the same."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject, visible
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.sql.primary import primary
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


class ToAReplica:
    """A router as Django's documentation has it, to a database that there is not."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "a replica that must not be asked"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *args: Any, **hints: Any) -> bool:
        return True


@pytest.fixture
def routed(settings: Any, granted: Any) -> User:
    """Ada, whose own notes a policy shows, and a router that reads from a replica."""
    ada = User.objects.create_user("ada")
    Note.objects.create(owner=ada, title="mine")
    Note.objects.create(title="nobody's")
    granted("view_note", using={"owner": "$user.id"})
    settings.DATABASE_ROUTERS = [ToAReplica()]
    return ada


def test_policies_are_read_from_the_primary(routed: User) -> None:
    assert primary(Note) == "default"
    assert len(PolicySnapshot.load().rules(Note, "view")) == 1


def test_a_queryset_is_answered_by_the_primary(routed: User) -> None:
    rows = visible(Note.objects.all(), Subject.from_user(routed))
    assert [note.title for note in rows] == ["mine"]


def test_a_queryset_that_names_a_database_keeps_it(routed: User) -> None:
    rows = visible(Note.objects.using("default"), Subject.from_user(routed))
    assert rows.db == "default"


def test_a_row_is_judged_as_the_primary_has_it(routed: User) -> None:
    mine, others = Note.objects.using("default").order_by("pk")
    assert routed.has_perm("zoo.view_note", mine)
    assert not routed.has_perm("zoo.view_note", others)
