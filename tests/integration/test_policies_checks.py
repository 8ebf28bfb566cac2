"""System checks on policies and settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import ERROR, WARNING, run_checks
from django.db.models import Q

from auth_rls import checks, declare_policy
from auth_rls.declared import isolated
from tests.integration.policy_world import policy


@pytest.fixture(autouse=True)
def nothing_declared() -> Iterator[None]:
    with isolated():
        yield


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
