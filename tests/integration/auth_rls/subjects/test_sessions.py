"""When the sessions of connections are over."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils.crypto import salted_hmac

from auth_rls.subjects import sessions
from tests.support.policies import user

pytestmark = pytest.mark.django_db


def held(account: User) -> sessions.SessionProof:
    """The proof of a session that the account has just begun."""
    browser = Client()
    browser.force_login(account, "django.contrib.auth.backends.ModelBackend")
    key = browser.cookies["sessionid"].value
    assert sessions.user_of_session(key) == account
    return sessions.proof(key, sessions.user_of_session(key))


def test_a_field_that_a_project_ends_sessions_by_is_looked_at_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_last_name(self: Any) -> str:
        return salted_hmac(
            "sessions", self.password + self.last_name, algorithm="sha256"
        ).hexdigest()

    monkeypatch.setattr(User, "get_session_auth_hash", by_last_name)
    proofs = {name: held(user(name)) for name in ("ada", "bob")}
    assert sessions.ended(proofs.values()) == set()
    User.objects.filter(username="ada").update(last_name="everywhere")
    assert sessions.ended(proofs.values()) == {proofs["ada"]}


def test_other_fields_of_a_user_end_nothing() -> None:
    proof = held(user("ada"))
    User.objects.update(last_name="Lovelace")
    assert sessions.ended([proof]) == set()
    User.objects.update(password="another")
    assert sessions.ended([proof]) == {proof}
