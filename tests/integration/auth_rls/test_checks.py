"""System checks on policies and settings."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.checks import ERROR, WARNING, run_checks
from django.db.models import Q

from auth_rls import checks, declare_policy
from tests.support.policies import drop_the_score, permission, policy, user
from tests.zoo.models import Diner, Restaurant

pytestmark = pytest.mark.usefixtures("nothing_declared")


def found(**kwargs: Any) -> dict[str, str]:
    """id -> message, of this app's checks."""
    return {m.id: m.msg for m in run_checks(**kwargs) if m.id.startswith("auth_rls.")}


@pytest.mark.django_db
def test_a_stored_policy_that_cannot_be_used_is_an_error_of_its_database() -> None:
    policy({"is_public": True}, name="fine")
    broken = policy({"ownr": 1}, name="Broken one")
    messages = checks.check_stored(databases=["default"])
    assert [(m.id, m.level, m.obj) for m in messages] == [("auth_rls.E001", ERROR, broken)]
    assert "Broken one" in messages[0].msg and "'ownr'" in messages[0].msg and messages[0].hint
    assert "auth_rls.E001" in found(databases=["default"])
    assert "auth_rls.E001" not in found()


@pytest.mark.django_db
def test_a_policy_that_the_database_cannot_evaluate_is_an_error() -> None:
    """The models may be ahead of the tables, or the tables not what the models say."""
    broken = policy({"any": [{"owner": "$user.id"}, {"score__in": [1, 2]}]}, name="Stored")
    declare_policy("Declared", "zoo.view_note", using=Q(score__range=[1, "$claims.n"]))
    declare_policy("Fine", "zoo.view_note", using=Q(owner="$user.id"))
    drop_the_score()
    messages = checks.check_stored(databases=["default"])
    assert [(m.id, m.obj) for m in messages] == [("auth_rls.E001", broken), ("auth_rls.E001", None)]
    for message, name in zip(messages, ("Stored", "Declared"), strict=True):
        assert name in message.msg and "the database cannot evaluate it" in message.msg
        assert "score" in message.msg and "\n" not in message.msg


@pytest.mark.django_db
def test_a_select_that_the_database_cannot_evaluate_is_an_error() -> None:
    policy({"id__in": {"select": "id", "from": "zoo.Note", "where": {"score": "$claims.n"}}})
    drop_the_score()
    (message,) = checks.check_stored(databases=["default"])
    assert "the database cannot evaluate it" in message.msg


@pytest.mark.django_db
def test_of_a_policy_on_topics_which_have_no_table_what_it_selects_is_tried() -> None:
    selected = {"select": "id", "from": "zoo.Note", "where": {"score": "$claims.n"}}
    topics = "realtime.receive_broadcast"
    policy({"topic": "lobby"}, on=topics)
    policy({"topic__in": selected}, on=topics, name="By score")
    drop_the_score()
    (message,) = checks.check_stored(databases=["default"])
    assert "By score" in message.msg and "the database cannot evaluate it" in message.msg


@pytest.mark.django_db
def test_what_is_said_of_a_new_row_is_tried_as_well() -> None:
    policy(on="zoo.add_note", with_check={"score": 1})
    drop_the_score()
    (message,) = checks.check_stored(databases=["default"])
    assert "with_check: the database cannot evaluate it" in message.msg


@pytest.mark.django_db
def test_a_disabled_policy_is_no_error() -> None:
    policy({"ownr": 1}, enabled=False)
    assert checks.check_stored(databases=["default"]) == []


@pytest.mark.django_db
def test_pending_migrations_make_it_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Migration:
        app_label = "zoo"

    policy({"ownr": 1})
    monkeypatch.setattr(
        checks.MigrationExecutor, "migration_plan", lambda *args: [(Migration, False)]
    )
    messages = checks.check_stored(databases=["default"])
    assert [(m.id, m.level) for m in messages] == [("auth_rls.W004", WARNING)]
    monkeypatch.setattr(Migration, "app_label", "auth_rls")
    assert checks.check_stored(databases=["default"]) == []


def test_a_declared_policy_that_cannot_be_used_is_an_error() -> None:
    declare_policy("p", "zoo.view_note", using=Q(ownr=1))
    (message,) = checks.check_declared()
    assert message.id == "auth_rls.E001"
    assert __name__ in message.msg and "'ownr'" in message.msg


def test_a_missing_backend_is_a_warning(settings: Any) -> None:
    assert "auth_rls.W002" not in found()
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert "auth_rls.W002" in found()


def test_a_short_secret_is_a_warning(settings: Any) -> None:
    assert "auth_rls.W003" not in found()
    settings.AUTH_RLS = {"JWT_KEY": "short"}
    assert "auth_rls.W003" in found()


def test_settings_that_cannot_be_used_are_an_error(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_KEYS": "x"}
    assert "'JWT_KEY'" in found()["auth_rls.E003"]


def test_a_key_of_its_own_for_tokens_is_asked_for_before_deployment(settings: Any) -> None:
    def asked() -> bool:
        found = run_checks(include_deployment_checks=True)
        return "auth_rls.W005" in {message.id for message in found}

    assert asked() and "auth_rls.W005" not in found()
    settings.AUTH_RLS = {"JWT_KEY": settings.SECRET_KEY}
    assert asked()
    settings.AUTH_RLS = {"JWT_KEY": "a-key-of-its-own-that-is-long-enough-for-hs256"}
    assert not asked()
    settings.SECRET_KEY_FALLBACKS = ["a-key-of-its-own-that-is-long-enough-for-hs256"]
    assert asked()


FOREIGN = {
    "JWT_KEY": "a-key-of-its-own-that-is-long-enough-for-hs256",
    "JWKS": {"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0" * 8}]},
}


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({}, ["JWT_AUDIENCE", "JWT_ISSUER"]),
        ({"JWT_AUDIENCE": "app"}, ["JWT_ISSUER"]),
        ({"JWT_ISSUER": "https://id.example"}, ["JWT_AUDIENCE"]),
        ({"JWT_AUDIENCE": "app", "JWT_ISSUER": "https://id.example"}, []),
    ],
)
def test_another_issuer_without_audience_or_issuer_is_a_warning(
    settings: Any, keys: Any, missing: list[str]
) -> None:
    settings.AUTH_RLS = {**FOREIGN, **keys}
    warned = [message for message in run_checks() if message.id == "auth_rls.W006"]
    assert bool(warned) is bool(missing)
    for name in missing:
        assert name in str(warned[0].hint)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("pk", None),
        ("username", None),
        ("id", None),
        ("email", "auth_rls.W007"),
        ("nickname", "auth_rls.E004"),
        ("groups", "auth_rls.E004"),
    ],
)
def test_the_field_that_users_are_looked_up_by_exists_and_is_unique(
    settings: Any, field: str, expected: str | None
) -> None:
    settings.AUTH_RLS = {"USER_FIELD": field}
    assert {"auth_rls.W007", "auth_rls.E004"} & set(found()) == ({expected} if expected else set())


@pytest.mark.django_db
def test_a_child_whose_parent_has_no_policy_for_the_action_is_warned_of() -> None:
    policy({"is_public": True})
    policy(on="zoo.view_restaurant")
    policy(on="zoo.change_diner")
    policy(on="zoo.change_restaurant")
    policy(on="zoo.change_place", mode="restrictive")
    messages = checks.check_parents(databases=["default"])
    assert {m.id for m in messages} == {"auth_rls.W008"} and messages[0].hint
    assert [(m.obj, m.msg.partition(":")[0]) for m in messages] == [
        (Diner, "Policies on zoo.Diner grant no change"),
        (Restaurant, "Policies on zoo.Restaurant grant no change"),
        (Restaurant, "Policies on zoo.Restaurant grant no view"),
    ]
    assert "zoo.view_place" in str(messages[-1].hint)
    policy(on="zoo.change_place")
    policy(on="zoo.view_place")
    assert checks.check_parents(databases=["default"]) == []
    assert checks.check_parents() == []


@pytest.mark.django_db
def test_a_permission_that_nobody_holds_is_warned_of() -> None:
    policy(True, name="Holders", audience="permission")
    policy(True, name="All", on="zoo.view_team", audience="anyone")
    # A new project has a superuser, who needs no permission, and nobody else.
    user("root", is_superuser=True)
    assert checks.check_holders(databases=["default"]) == []
    user("gone", "zoo.view_note", is_active=False)
    ada = user("ada")
    messages = checks.check_holders(databases=["default"])
    assert [(m.id, m.level) for m in messages] == [("auth_rls.W009", WARNING)]
    assert "Nobody holds zoo.view_note" in messages[0].msg and "(Holders)" in messages[0].msg
    assert "authenticated, or anyone" in str(messages[0].hint)
    assert checks.check_holders() == []
    group = Group.objects.create(name="readers")
    group.permissions.add(permission("zoo.view_note"))
    ada.groups.add(group)
    assert checks.check_holders(databases=["default"]) == []


@pytest.mark.django_db
def test_a_value_that_is_none_of_the_choices_is_warned_of() -> None:
    policy({"status": "opne"}, on="demo.view_task", name="Typo")
    policy({"status__in": ["todo", "done"]}, on="demo.view_task", name="Fine")
    policy({"status": "opne"}, on="demo.view_task", name="Off", enabled=False)
    messages = checks.check_stored_choices(databases=["default"])
    assert [(m.id, m.level) for m in messages] == [("auth_rls.W010", WARNING)]
    assert "'Typo': status of demo.Task is compared with 'opne'" in messages[0].msg
    assert "todo" in messages[0].msg and messages[0].hint
    assert checks.check_stored_choices() == checks.check_declared_choices() == []
    declare_policy("In code", "demo.view_task", using=~Q(status__in=["todo", "gone"]))
    [declared] = checks.check_declared_choices()
    assert (
        declared.id == "auth_rls.W010" and "'In code'" in declared.msg and "'gone'" in declared.msg
    )


@pytest.mark.django_db
def test_values_of_choices_are_looked_for_inside_selects_and_only_whole() -> None:
    teams = {"select": "team", "from": "demo.Membership", "where": {"role": "chief"}}
    policy({"team__in": teams}, on="demo.view_task", name="Inside")
    parts = {"status__startswith": "do", "status__gt": "a", "assignee": "$user.id"}
    policy(parts, on="demo.view_task", name="Parts")
    policy({"status": "$claims.status"}, on="demo.view_task", name="Claim")
    [message] = checks.check_stored_choices(databases=["default"])
    assert "role of demo.Membership is compared with 'chief'" in message.msg
