"""Exported policies that compare a field of the user alone, of every kind that a field may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, models

from auth_rls import Subject, visible
from tests.support.exports import export, of, seen
from tests.support.policies import policy, user
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, on_postgresql, pytest.mark.usefixtures("alone")]


@pytest.fixture
def fields() -> Iterator[None]:
    """Users have a field of JSON, one of bytes and one of an IP address besides."""
    added: dict[str, Any] = {
        "extra": models.JSONField(null=True),
        "photo": models.BinaryField(null=True),
        "address": models.GenericIPAddressField(null=True),
    }
    with connection.schema_editor() as editor:
        for name, field in added.items():
            field.contribute_to_class(User, name)
            editor.add_field(User, field)
    yield
    for field in added.values():
        User._meta.local_fields.remove(field)
        delattr(User, field.name)
    User._meta.apps.clear_cache()


@pytest.mark.usefixtures("fields")
@pytest.mark.parametrize(("name", "value"), [("extra", {"a": 1}), ("photo", b"\0"), ("extra", [])])
@pytest.mark.parametrize("null", [True, False])
def test_a_field_of_json_or_bytes_is_null_where_it_is(name: str, value: Any, null: bool) -> None:
    policy({f"$user.{name}__isnull": null})
    Note.objects.create(title="shown")
    has, lacks = user("has", **{name: value}), user("lacks")
    _, said = export("--apply")
    assert said == ""
    for who in (has, lacks, None):
        subject = Subject.anonymous() if who is None else Subject.from_user(who)
        claims = {"role": "anon"} if who is None else of(who)
        by_queryset = visible(Note.objects.all(), subject).values_list("title", flat=True)
        assert seen(claims) == set(by_queryset)


@pytest.mark.usefixtures("fields")
def test_fields_that_sql_cannot_compare_deny_and_are_noted() -> None:
    policy({"$user.username": "$user.address"}, name="Odd")
    policy({"title": "public"})
    Note.objects.create(title="public")
    Note.objects.create(title="private")
    _, said = export("--apply")
    assert "policy 'Odd': $user.username__exact: $user.address is an IP address" in said
    assert seen(of(user("10.0.0.1", address="10.0.0.1"))) == {"public"}
