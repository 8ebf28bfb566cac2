"""Django sessions as credentials: the user of a session, and which sessions have ended.

Reads sessions and users and writes neither. Called in database threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.cache import caches
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.http import HttpRequest
from django.utils import timezone

from auth_rls.sql.primary import primary

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class SessionProof:
    """The session of a connection. `key` is the value of its cookie. `fingerprint` has those values
    of the user whose change ends sessions; it is compared and never shown."""

    key: str = field(repr=False)
    user_key: Any
    fingerprint: tuple[Any, ...] = field(repr=False)


class _ReadOnlySession(dict[str, Any]):
    """The contents of a session, for a reader that cannot send a cookie back.

    Django gives a session that an older SECRET_KEY signed a new key, and drops one whose password
    changed. In a handshake, a new key would log the browser out. The next request of the page does
    both.
    """

    def cycle_key(self) -> None:
        """Does nothing: see the class."""

    def flush(self) -> None:
        """Does nothing: see the class."""


def session_user(cookies: Mapping[str, str]) -> Any:
    """The active user whose Django session these cookies name, or None. Verified as
    `django.contrib.auth` does."""
    return user_of_session(cookies.get(settings.SESSION_COOKIE_NAME) or "")


def user_of_session(key: str) -> Any:
    """As `session_user`, for the value of the session cookie."""
    if not key or "\0" in key:  # PostgreSQL takes no NUL in text
        return None
    request = HttpRequest()
    request.COOKIES = {settings.SESSION_COOKIE_NAME: key}
    request.session = _ReadOnlySession(_store(key).items())  # type: ignore[assignment]
    user: Any = get_user(request)
    users = get_user_model()
    if user.is_authenticated and router.db_for_read(users) != primary(users):
        # Django's backends read where routers say, and a replica may be behind.
        user = users._default_manager.using(primary(users)).filter(pk=user.pk).first()
        if user is None:
            return None
    return user if user.is_authenticated and user.is_active else None


def proof(key: str, user: Any) -> SessionProof:
    """The proof of a session of `user`, for `ended` and `still_good`."""
    return SessionProof(key, user.pk, _fingerprint(user))


def still_good(held: SessionProof) -> bool:
    """Whether the session is still its user's, verified as at the handshake."""
    user = user_of_session(held.key)
    return user is not None and user.pk == held.user_key


def ended(proofs: Iterable[SessionProof]) -> set[SessionProof]:
    """Those of these sessions that have ended: by logout, expiry or deletion, by a change of the
    password, or because the user was deactivated or deleted.

    Two queries for each 500 of them. Of sessions in files, cookies and engines of other packages
    only the user is checked; `still_good` checks them fully, one by one.
    """
    known = list(proofs)
    lost: set[SessionProof] = set()
    for start in range(0, len(known), _AT_ONCE):
        some = known[start : start + _AT_ONCE]
        stored = _stored({each.key for each in some})
        users = _fingerprints({each.user_key for each in some})
        lost.update(
            each
            for each in some
            if users.get(each.user_key) != each.fingerprint
            or (stored is not None and each.key not in stored)
        )
    return lost


def _store(key: str) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def _stored(keys: set[str]) -> set[str] | None:
    """Those of the keys that have a session; None if the engine cannot be queried for many at
    once."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        model = store.get_model_class()
        rows = model._base_manager.using(primary(model)).filter(
            session_key__in=keys, expire_date__gt=timezone.now()
        )
        return set(rows.values_list("session_key", flat=True))
    if issubclass(store, CacheStore):
        names = {store.cache_key_prefix + key: key for key in keys}
        found = caches[settings.SESSION_CACHE_ALIAS].get_many(names)
        return {names[name] for name in found}
    return None


def _fields() -> Sequence[str]:
    """The columns of the user table whose change ends sessions."""
    model = get_user_model()
    found = []
    for name in ("password", "is_active"):
        try:
            found.append(str(model._meta.get_field(name).attname))  # type: ignore[union-attr]
        except FieldDoesNotExist:
            continue
    return found


def _has_own_hash(model: Any) -> bool:
    """Whether a project says by other fields, too, when a session of its users is over."""
    own = getattr(model, "get_session_auth_hash", None)
    return own not in (None, AbstractBaseUser.get_session_auth_hash)


def _fingerprint(user: Any) -> tuple[Any, ...]:
    values = tuple(getattr(user, name, None) for name in _fields())
    return (*values, user.get_session_auth_hash()) if _has_own_hash(type(user)) else values


def _fingerprints(user_keys: set[Any]) -> dict[Any, tuple[Any, ...]]:
    model = get_user_model()
    rows = model._default_manager.using(primary(model)).filter(pk__in=user_keys)
    if _has_own_hash(model):
        return {user.pk: _fingerprint(user) for user in rows}
    return {key: tuple(rest) for key, *rest in rows.values_list("pk", *_fields())}
