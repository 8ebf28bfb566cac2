"""Whose sessions are, one by one and many at once, and when those of connections are over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.sessions.backends import cached_db, db
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone
from django.utils.crypto import salted_hmac

from auth_rls.subjects import sessions
from tests.support.policies import user

pytestmark = pytest.mark.django_db
STOCK = "django.contrib.auth.backends.ModelBackend"


class OnlyAda(ModelBackend):
    """A backend that decides by itself who has a session."""

    def get_user(self, user_id: int) -> Any:
        return User.objects.filter(pk=user_id, username="ada").first()


class Strict(ModelBackend):
    """A backend that finds users as Django's own does, and lets not all of them in."""

    def user_can_authenticate(self, user: Any) -> bool:
        return bool(user.username == "ada")


class ByMail(ModelBackend):
    """A backend that differs from Django's own in what one signs in with."""

    def authenticate(self, request: Any, **credentials: Any) -> Any:
        return User.objects.filter(email=credentials.get("email")).first()


class SessionStore(db.SessionStore):
    """An engine of a project: only by the first letter of a key may there be a session."""

    def load(self) -> dict[str, Any]:
        return super().load() if str(self.session_key) > "m" else {}


def logged_in(account: User, backend: str = STOCK) -> str:
    """The key of a session that the account has just begun."""
    browser = Client()
    browser.force_login(account, backend)
    return browser.cookies["sessionid"].value


def stored(content: dict[str, Any]) -> str:
    """The key of a session that holds this."""
    session = db.SessionStore()
    session.update(content)
    session.save()
    return str(session.session_key)


def whose(found: Any) -> Any:
    return found and (found[0].user, found[1])


def held(account: User) -> sessions.SessionProof:
    """The proof of a session that the account has just begun."""
    key = logged_in(account)
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


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache"])
def test_of_many_sessions_each_is_judged_as_by_itself(settings: Any, engine: str) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.AUTHENTICATION_BACKENDS = [STOCK, f"{__name__}.ByMail"]
    names = ("ada", "bob", "inactive", "changed", "gone", "fresh")
    accounts = {name: user(name) for name in names}
    keys = {name: logged_in(account) for name, account in accounts.items() if name != "fresh"}
    keys["by mail"] = logged_in(accounts["ada"], f"{__name__}.ByMail")
    keys["of a backend that is used no longer"] = logged_in(accounts["ada"], f"{__name__}.OnlyAda")
    User.objects.filter(username="inactive").update(is_active=False)
    User.objects.filter(username="gone").delete()
    User.objects.filter(username="changed").update(password="another")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the-new-secret-key-which-is-long-enough"
    keys["fresh"] = logged_in(accounts["fresh"])
    keys["nobody"] = "unknownbutlongenough"

    together = sessions.subjects_of_sessions(keys.values())
    alone = {key: sessions.subject_of_session(key) for key in keys.values()}
    assert {key: whose(found) for key, found in together.items()} == {
        key: whose(found) for key, found in alone.items()
    }
    good = {name for name, key in keys.items() if together[key] is not None}
    assert good == {"ada", "bob", "by mail", "fresh"}

    settings.SECRET_KEY_FALLBACKS = []
    left = sessions.subjects_of_sessions(keys.values())
    assert [name for name, key in keys.items() if left[key] is not None] == ["fresh"]


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_of_many_sessions_those_that_have_expired_or_were_left_are_nobodys(
    settings: Any, engine: str
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    ada, late, out = (logged_in(user(name)) for name in ("ada", "late", "out"))
    for key in (late, out):
        cached_db.SessionStore(key).delete(key)
    Session.objects.create(
        session_key=late,
        session_data=Session.objects.get(pk=ada).session_data,
        expire_date=timezone.now() - timedelta(seconds=1),
    )
    found = sessions.subjects_of_sessions([ada, late, out])
    assert {key for key, one in found.items() if one is not None} == {ada}


@pytest.mark.parametrize(("engine", "queries"), [("db", 2), ("cached_db", 1), ("cache", 1)])
def test_many_sessions_are_read_at_once(
    settings: Any, engine: str, queries: int, django_assert_num_queries: Any
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    accounts = [user(f"user {number}") for number in range(5)]
    keys = [logged_in(account) for account in accounts]
    with django_assert_num_queries(queries):
        found = sessions.subjects_of_sessions(keys)
    assert [found[key][0].user for key in keys if found[key] is not None] == accounts


def test_a_cache_that_lost_sessions_or_fails_leaves_them_to_the_database(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
    keys = [logged_in(user(name)) for name in ("ada", "bob")]
    caches["default"].delete(cached_db.KEY_PREFIX + keys[0])
    assert None not in sessions.subjects_of_sessions(keys).values()

    def fails(*arguments: Any) -> Any:
        raise OSError("no cache")

    monkeypatch.setattr(caches["default"], "get_many", fails)
    assert None not in sessions.subjects_of_sessions(keys).values()
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    assert sessions.subjects_of_sessions(keys) == dict.fromkeys(keys)


@pytest.mark.parametrize("backend", [f"{__name__}.OnlyAda", f"{__name__}.Strict"])
def test_a_backend_that_decides_by_itself_is_asked_for_each(settings: Any, backend: str) -> None:
    settings.AUTHENTICATION_BACKENDS = [STOCK, backend]
    own, stock = logged_in(user("ada"), backend), logged_in(user("bob"))
    assert set(sessions.subjects_of_sessions([own, stock])) == {stock}


def test_sessions_of_other_engines_and_strange_keys_are_read_one_by_one(settings: Any) -> None:
    key = logged_in(user("ada"))
    assert sessions.read_together(key)
    for strange in ("", "short", key.upper(), f"{key} ", f"{key}\0", "ключ" * 8, key * 2):
        assert not sessions.read_together(strange)
    settings.SESSION_ENGINE = __name__
    assert not sessions.read_together(key)
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    assert not sessions.read_together(key)


def test_a_session_that_names_no_possible_user_raises_as_alone() -> None:
    key = stored({"_auth_user_id": "x", "_auth_user_backend": STOCK, "_auth_user_hash": "x"})
    for read in (sessions.subject_of_session, lambda one: sessions.subjects_of_sessions([one])):
        with pytest.raises(ValidationError):
            read(key)


def test_a_session_without_a_hash_or_without_a_user_is_nobodys() -> None:
    account = user("ada")
    bare = {"_auth_user_id": str(account.pk), "_auth_user_backend": STOCK}
    keys = [stored(content) for content in ({}, bare, {**bare, "_auth_user_hash": ""}, {"cart": 7})]
    assert sessions.subjects_of_sessions(keys) == dict.fromkeys(keys)
