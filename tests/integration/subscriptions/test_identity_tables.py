"""Which user a row of the tables is about that give users their groups."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser, Group, PermissionsMixin, User
from django.db import models
from django.test.utils import isolate_apps

from realtime.subscriptions import identity_tables
from realtime.subscriptions.identity_tables import user_keys, users_are_followed

MEMBERSHIP = "zoo_membership"


def column_of_membership(monkeypatch: pytest.MonkeyPatch, **options: Any) -> str | None:
    """The column with the user's key in a membership whose `user` is a key with these options."""
    with isolate_apps("tests.zoo", "django.contrib.auth", "django.contrib.contenttypes"):

        class Person(AbstractBaseUser, PermissionsMixin):
            email = models.CharField(max_length=100, unique=True)
            groups = models.ManyToManyField(  # type: ignore[assignment]
                Group, through="Membership", through_fields=("user", "group")
            )

            class Meta:
                app_label = "zoo"

        class Membership(models.Model):
            # The first key that names a user, and not the member.
            added_by = models.ForeignKey(Person, models.CASCADE, related_name="added")
            user = models.ForeignKey(Person, models.CASCADE, **options)
            group = models.ForeignKey(Group, models.CASCADE)

            class Meta:
                app_label = "zoo"

        monkeypatch.setattr(identity_tables, "get_user_model", lambda: Person)
        monkeypatch.setattr(
            identity_tables, "table_of", lambda label: f"zoo_{label.partition('.')[2].lower()}"
        )
        return user_keys()[MEMBERSHIP]


def test_a_membership_is_about_its_member(monkeypatch: pytest.MonkeyPatch) -> None:
    assert column_of_membership(monkeypatch) == "user_id"


def test_a_membership_that_names_its_member_by_another_field_is_about_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert column_of_membership(monkeypatch, to_field="email") is None


def test_users_whom_a_query_of_the_projects_own_may_hide_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Living(models.QuerySet[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.query.add_q(models.Q(is_staff=True))

    assert users_are_followed()
    manager: Any = models.Manager.from_queryset(Living)()
    manager.model = User
    monkeypatch.setattr(User._meta, "default_manager", manager)
    assert not users_are_followed()


def test_users_whose_attributes_are_computed_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        User, "__getattribute__", lambda user, name: models.Model.__getattribute__(user, name)
    )
    assert not users_are_followed()
