"""Policies as they are written: what is refused when saved, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.core.exceptions import ValidationError

from auth_rls.models import Policy
from tests.support.policies import permission, policy
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db


def refusals(using: Any = None, *, on: str = "zoo.view_note", **fields: Any) -> dict[str, str]:
    """Field -> message, for a policy that is refused; empty for one that is accepted."""
    fields.setdefault("permission", permission(on))
    try:
        Policy(name="p", using=using, **fields).full_clean()
    except ValidationError as error:
        return {name: " ".join(messages) for name, messages in error.message_dict.items()}
    return {}


@pytest.mark.parametrize(
    "using",
    [
        True,
        False,
        {"owner": "$user.id"},
        {"owner_id": "$user.id", "is_public": True},
        {"pk__in": [1, 2]},
        {"any": [{"title": "$user.username"}, {"not": {"score__range": [1, "$claims.top"]}}]},
        {"title": "$$literal"},
        {"team__in": {"select": "team_id", "from": "zoo.Member", "where": {"user": "$user.pk"}}},
    ],
)
def test_what_the_grammar_allows_is_accepted(using: Any) -> None:
    assert refusals(using) == {}


@pytest.mark.parametrize(
    ("using", "words"),
    [
        ({"ownr": 1}, ["'ownr'", "zoo.Note", "did you mean 'owner'"]),
        ({"team__name": "x"}, ["team__name", "no joins here", "team__in"]),
        ({"score__contains": "1"}, ["'contains'", "score", "gte"]),
        ({"score": "high"}, ["score", "whole number", "'high'"]),
        ({"score": None}, ["score", "isnull"]),
        ({"owner": "$usr.id"}, ["$usr.id", "$user.id"]),
        ({"owner": "$user.shoe_size"}, ["shoe_size", "auth.User", "email"]),
        ({"title": "$user.password"}, ["password"]),
        ({"title__in": {"select": "password", "from": "auth.User"}}, ["auth.User.password"]),
        (
            {"owner__in": {"select": "id", "from": "auth.User", "where": {"password": "x"}}},
            ["auth.User.password", "not compared"],
        ),
        ({"owner__in": {"select": "user", "from": "zoo.Nothing"}}, ["zoo.Nothing"]),
        ({"owner__in": {"select": "nobody", "from": "zoo.Member"}}, ["'nobody'", "zoo.Member"]),
        ({"owner": {"select": "user", "from": "zoo.Member"}}, ["select", "owner_id__in"]),
        (
            {"owner__in": {"select": "user", "from": "zoo.Member", "where": {"rol": "x"}}},
            ["'rol'", "did you mean 'role'"],
        ),
        ([], ["true, false or an object"]),
        ({}, ["true"]),
        ("owner", ["true, false or an object"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(using: Any, words: list[str]) -> None:
    found = refusals(using)
    assert set(found) == {"using"}
    for word in words:
        assert word in found["using"]


def test_rows_must_be_named() -> None:
    assert "true for every row" in refusals(None)["using"]


def test_errors_of_the_check_stand_at_the_check() -> None:
    found = refusals(True, on="zoo.change_note", with_check={"ownr": 1})
    assert set(found) == {"with_check"}


@pytest.mark.parametrize("action", ["view", "delete"])
def test_only_add_and_change_look_at_a_new_row(action: str) -> None:
    found = refusals(True, on=f"zoo.{action}_note", with_check=True)
    assert "using" in found["with_check"]


def test_an_add_needs_one_of_the_two() -> None:
    assert set(refusals(None, on="zoo.add_note")) == {"using"}
    assert refusals(None, on="zoo.add_note", with_check={"owner": "$user.id"}) == {}
    assert refusals({"owner": "$user.id"}, on="zoo.add_note") == {}


def test_a_permission_that_is_no_action_on_rows_is_refused() -> None:
    notes = ContentType.objects.get_for_model(Note)
    custom = Permission.objects.create(content_type=notes, codename="frame_note", name="x")
    assert "zoo.frame_note" in refusals(True, permission=custom)["permission"]


def test_a_permission_of_another_model_under_that_name_is_refused() -> None:
    notes = ContentType.objects.get_for_model(Note)
    odd = Permission.objects.create(content_type=notes, codename="view_team", name="x")
    assert "did you mean zoo.view_note" in refusals(True, permission=odd)["permission"]


def test_a_permission_of_a_model_that_is_gone_is_refused() -> None:
    gone = ContentType.objects.create(app_label="zoo", model="dodo")
    dead = Permission.objects.create(content_type=gone, codename="view_dodo", name="x")
    assert "no model that is installed" in refusals(True, permission=dead)["permission"]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("using", {"using": {"ownr": 1}}),
        ("using", {"using": {}}),
        ("using", {"using": None}),
        ("with_check", {"with_check": {"ownr": 1}}),
        ("audience", {"audience": "everyone"}),
        ("mode", {"mode": "lenient"}),
        ("name", {"name": ""}),
        ("permission", {"on": "sessions.view_session"}),
        ("permission", {"on": "zoo.view_cityplace"}),
    ],
)
def test_saving_refuses_what_the_form_refuses(field: str, fields: dict[str, Any]) -> None:
    values: dict[str, Any] = {"name": "p", "on": "zoo.view_note", "using": True, **fields}
    values["permission"] = permission(values.pop("on"))
    with pytest.raises(ValidationError) as refused:
        Policy.objects.create(**values)
    assert field in refused.value.message_dict
    assert not Policy.objects.exists()


def test_a_saved_policy_is_not_changed_into_one_that_cannot_be_used() -> None:
    good = policy(True)
    good.using = {"ownr": 1}
    for options in ({}, {"update_fields": ["using"]}, {"update_fields": ["using", "enabled"]}):
        with pytest.raises(ValidationError):
            good.save(**options)
    with pytest.raises(ValidationError):
        Policy.objects.update_or_create(name=good.name, defaults={"using": {"ownr": 1}})
    assert Policy.objects.get().using is True


def test_a_policy_that_cannot_be_used_any_more_may_be_switched_off() -> None:
    broken = policy({"gone": 1})
    broken.enabled = False
    broken.save(update_fields=["enabled"])
    broken.enabled = True
    with pytest.raises(ValidationError):
        broken.save(update_fields=["enabled"])
    assert not Policy.objects.get().enabled


def test_fixtures_and_bulk_operations_store_what_denies() -> None:
    broken = Policy(name="p", permission=permission("zoo.view_note"), using={"ownr": 1})
    Policy.objects.bulk_create([broken])
    written = serializers.serialize("json", Policy.objects.all())
    Policy.objects.all().delete()
    for found in serializers.deserialize("json", written):
        found.save()
    problem = Policy.objects.get().problem()
    assert problem is not None and problem.field == "using"


def test_deep_json_is_refused_and_harms_nothing() -> None:
    deep: Any = True
    for _ in range(200):
        deep = {"not": deep}
    assert "deeper" in refusals(deep)["using"]
