"""What policies read is captured too, from the moment the policy is saved, and shown to nobody."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps

from auth_rls.models import Policy
from realtime import publish
from realtime.wal import published, triggers
from tests.support.captured_models import (
    changes,
    forget,
    ops,
    recorded,
    states,
    tables_of,
    withdraw,
)
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db(transaction=True)

MEMBERSHIP = {
    "team_id__in": {
        "select": "team_id",
        "from": "zoo.Member",
        "where": {"user_id": "$user.id"},
    }
}


def policy(using: Any, **values: Any) -> Policy:
    permission = Permission.objects.get(codename="view_note", content_type__app_label="zoo")
    return Policy.objects.create(name="p", permission=permission, using=using, **values)


@pytest.fixture
def member(db: Any) -> Member:
    user = get_user_model().objects.create_user("u", password="a secret")
    return Member.objects.create(user=user, team=Team.objects.create(name="t"))


def test_a_table_that_a_policy_selects_from_is_captured_while_the_policy_stands(
    member: Member,
) -> None:
    assert states("zoo_member") == set()
    row = policy(MEMBERSHIP)
    assert states("zoo_member") == {"installed"}
    forget()
    Member.objects.update(role="admin")
    assert changes(Member) == []
    member.delete()
    (change,) = changes(Member)
    assert set(change.old or ()) == {"id", "user_id", "team_id"}
    relation = recorded(change.relation_id)
    assert not relation.published and relation.visible == ()
    row.delete()
    assert states("zoo_member") == set()


def test_an_unpublished_column_that_a_policy_reads_is_captured_hidden() -> None:
    kept = published.declarations["zoo.note"]
    publish(Note, columns=["title"])
    try:
        policy({"is_public": True})
        Note.objects.create(title="a", is_public=True)
        (change,) = changes(Note)
        assert set(change.new or ()) == {"id", "title", "is_public"}
        hidden = [c.name for c in recorded(change.relation_id).columns if c.hidden]
        assert hidden == ["is_public"]
        forget()
        Note.objects.update(body="nobody knows")
        assert changes(Note) == []
        Note.objects.update(is_public=False)
        assert ops(Note) == ["UPDATE"]
    finally:
        published.declarations["zoo.note"] = kept
        triggers.reconcile()


def test_a_login_writes_nothing_and_no_password_hash_is_ever_in_the_log() -> None:
    user = get_user_model().objects.create_user("u", password="a secret")
    (change,) = changes("auth_user")
    assert "password" not in (change.new or {})
    forget()
    user.set_password("another")
    user.save()
    get_user_model().objects.update(last_login="2025-01-01T00:00:00Z", email="x@example.com")
    assert changes("auth_user") == []
    user.is_active = False
    user.save()
    assert ops("auth_user") == ["UPDATE"]


def test_groups_and_permissions_of_users_are_followed() -> None:
    user = get_user_model().objects.create_user("u")
    group = Group.objects.create(name="g")
    permission = Permission.objects.first()
    assert permission is not None
    forget()
    user.groups.add(group)
    group.permissions.add(permission)
    user.user_permissions.add(permission)
    assert ops("auth_user_groups") == ["INSERT"]
    assert ops("auth_group_permissions") == ["INSERT"]
    assert ops("auth_user_user_permissions") == ["INSERT"]


def test_a_policy_that_changes_nothing_captured_changes_no_trigger() -> None:
    row = policy({"title": "a"})
    with CaptureQueriesContext(connection) as queries:
        row.using = {"title": "b"}
        row.save()
    assert not [q for q in queries if "TRIGGER" in q["sql"].upper().split("FROM")[0]]


def test_a_policy_saved_in_a_rolled_back_transaction_changes_nothing() -> None:
    from django.db import transaction

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        policy(MEMBERSHIP)
        raise ZeroDivisionError
    assert states("zoo_member") == set()


@isolate_apps("tests.zoo")
def test_a_many_to_many_table_may_be_published() -> None:
    class Tag(models.Model):
        class Meta:
            app_label = "zoo"

    @publish
    class Post(models.Model):
        tags = models.ManyToManyField(Tag)

        class Meta:
            app_label = "zoo"

    through = publish(Post.tags.through)
    with tables_of(Tag, Post):
        try:
            triggers.reconcile()
            post, tag = Post.objects.create(), Tag.objects.create()
            post.tags.add(tag)
            post.tags.clear()
            assert ops(through) == ["INSERT", "DELETE"]
            assert changes(through)[0].new == {"id": 1, "post_id": post.pk, "tag_id": tag.pk}
        finally:
            withdraw(through)


@isolate_apps("tests.zoo")
def test_a_child_of_a_published_model_is_captured_in_its_own_table() -> None:
    @publish
    class Pinned(Note):
        place = models.IntegerField()

        class Meta:
            app_label = "zoo"

    with tables_of(Pinned):
        pinned = Pinned.objects.create(title="both", place=3)
        assert changes(Note)[0].key == str(pinned.pk)
        assert changes(Pinned)[0].new == {"note_ptr_id": pinned.pk, "place": 3}


@isolate_apps("tests.zoo")
def test_an_unsupported_model_is_written_to_as_ever() -> None:
    class Point(models.Field):  # type: ignore[type-arg]
        def get_internal_type(self) -> str:
            return "Point"

        def db_type(self, connection: Any) -> str:
            return "text"

    @publish
    class Map(models.Model):
        place = Point(null=True)

        class Meta:
            app_label = "zoo"

    with tables_of(Map):
        Map.objects.create(place="here")
        assert states("zoo_map") == set()
        publish(Map, exclude=["place"])
        triggers.reconcile()
        Map.objects.create(place="there")
        assert changes(Map)[0].new == {"id": 2}
