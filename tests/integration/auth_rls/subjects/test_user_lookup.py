"""Users are found by the names in tokens, many by one query."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from auth_rls.subjects.token_errors import InvalidToken
from auth_rls.subjects.user_lookup import users_named

pytestmark = pytest.mark.django_db


def made(*names: str, **fields: Any) -> list[User]:
    return [User.objects.create_user(name, **fields) for name in names]


def test_each_name_gets_its_own_answer() -> None:
    ada, bob = made("ada", "bob")
    (gone,) = made("gone", is_active=False)
    names = [str(ada.pk), str(bob.pk), str(gone.pk), "999999", "no-number"]
    found = users_named(names)
    assert [found[name] for name in names[:2]] == [ada, bob]
    assert isinstance(found[str(gone.pk)], InvalidToken)
    assert found["999999"] is None
    assert found["no-number"] is None


def test_many_names_cost_no_more_queries_than_a_few() -> None:
    users = made(*(f"user {number}" for number in range(20)))
    counts = []
    for some in (users[:2], users):
        with CaptureQueriesContext(connection) as queries:
            users_named([*(str(user.pk) for user in some), "999999"])
        counts.append(len(queries))
    assert counts == [2, 2]


def test_a_name_that_several_have_refuses_itself_alone(settings: Any) -> None:
    settings.AUTH_RLS = {"USER_FIELD": "first_name"}
    made("one", "two", first_name="same")
    (other,) = made("three", first_name="other")
    found = users_named(["same", "other", "none"])
    assert isinstance(found["same"], InvalidToken)
    assert (found["other"], found["none"]) == (other, None)


def test_a_name_that_very_many_have_hides_no_other(settings: Any) -> None:
    settings.AUTH_RLS = {"USER_FIELD": "first_name"}
    made(*(f"user {number}" for number in range(40)), first_name="same")
    (other,) = made("another", first_name="other")
    found = users_named(["same", "other"])
    assert isinstance(found["same"], InvalidToken)
    assert found["other"] == other


def test_a_user_whom_the_default_manager_hides_is_refused_alone(monkeypatch: Any) -> None:
    ada, bob = made("ada", "bob")
    manager = type(User._default_manager)
    everybody = manager.get_queryset
    monkeypatch.setattr(
        manager, "get_queryset", lambda self: everybody(self).exclude(username="bob")
    )
    found = users_named([str(ada.pk), str(bob.pk), "999999"])
    assert found[str(ada.pk)] == ada
    assert isinstance(found[str(bob.pk)], InvalidToken)
    assert found["999999"] is None
