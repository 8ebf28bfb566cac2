"""Django sessions as credentials: the user of a session, and which sessions have ended.

Reads sessions and users and writes neither. Called in database threads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user,
    get_user_model,
    load_backend,
)
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDatabaseStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.cache import caches
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from auth_rls.sql.primary import primary
from auth_rls.subjects.subject import Subject

_AT_ONCE = 500
# Keys as Django makes them, which every database and cache takes.
_PLAIN_KEY = re.compile(r"[a-z0-9]{8,40}")


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


def user_of_session(key: str) -> Any:
    """The active user of the Django session with this value of the cookie, or None. Verified as
    `django.contrib.auth` does."""
    if not key or "\0" in key:  # PostgreSQL takes no NUL in text
        return None
    request = HttpRequest()
    request.COOKIES = {settings.SESSION_COOKIE_NAME: key}
    request.session = _ReadOnlySession(_store_class()(key).items())  # type: ignore[assignment]
    user: Any = get_user(request)
    users = get_user_model()
    if user.is_authenticated and router.db_for_read(users) != primary(users):
        # Django's backends read where routers say, and a replica may be behind.
        user = users._default_manager.using(primary(users)).filter(pk=user.pk).first()
        if user is None:
            return None
    return user if user.is_authenticated and user.is_active else None


def subject_of_session(key: str) -> tuple[Subject, SessionProof] | None:
    """The subject of the user of a session, and the proof of the session; None if it is nobody's.
    Verified as `user_of_session` does."""
    user = user_of_session(key)
    return None if user is None else (Subject.from_user(user), proof(key, user))


def read_together(key: str) -> bool:
    """Whether `subjects_of_sessions` reads the session with this key. It leaves those of other
    engines than Django's own in tables and caches, which may do anything, to `subject_of_session`,
    and keys that are not of Django's making. Makes no query."""
    stores = (DatabaseStore, CachedDatabaseStore, CacheStore)
    return _store_class() in stores and _PLAIN_KEY.fullmatch(key) is not None


def subjects_of_sessions(
    keys: Collection[str],
) -> dict[str, tuple[Subject, SessionProof] | None]:
    """By each of these keys, which are `read_together`, what `subject_of_session` answers. Those
    are missing whose backend of the project decides by itself who has a session.

    A query for the sessions, or one call of the cache, and a query for the users.
    """
    contents = _contents(keys)
    model = get_user_model()
    found: dict[str, tuple[Subject, SessionProof] | None] = dict.fromkeys(keys)
    wanted: dict[str, tuple[Any, Any]] = {}
    for key, content in contents.items():
        path = content.get(BACKEND_SESSION_KEY)
        if SESSION_KEY not in content or path not in settings.AUTHENTICATION_BACKENDS:
            continue
        backend: Any = load_backend(path)
        if _finds_users_plainly(type(backend)):
            wanted[key] = model._meta.pk.to_python(content[SESSION_KEY]), backend
        else:
            del found[key]
    users = _users([*{user_key for user_key, _ in wanted.values()}])
    for key, (user_key, backend) in wanted.items():
        user = users.get(user_key)
        if (
            user is not None
            and backend.user_can_authenticate(user)
            and user.is_authenticated
            and user.is_active
            and _signed_by(user, contents[key])
        ):
            found[key] = Subject.from_user(user), proof(key, user)
    return found


def _finds_users_plainly(backend: type[Any]) -> bool:
    """Whether the backend finds the user of a session by nothing but the user's row."""
    return (
        backend.get_user is ModelBackend.get_user
        and backend.user_can_authenticate is ModelBackend.user_can_authenticate
    )


def _signed_by(user: Any, content: Mapping[str, Any]) -> bool:
    """Whether the session began with the user's present password, under a key of the settings."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    shown = content.get(HASH_SESSION_KEY)
    if not shown:
        return False
    return constant_time_compare(shown, user.get_session_auth_hash()) or any(
        constant_time_compare(shown, older) for older in user.get_session_auth_fallback_hash()
    )


def _contents(keys: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """What those of these sessions hold that there are and that have not expired."""
    store = _store_class()
    found: dict[str, Mapping[str, Any]] = {}
    if store is not DatabaseStore:
        names = {store.cache_key_prefix + key: key for key in keys}
        try:
            cached = caches[settings.SESSION_CACHE_ALIAS].get_many(names)
        except Exception:
            cached = {}  # As Django's engines do, whatever the cache raises.
        found = {names[name]: content for name, content in cached.items() if content is not None}
    absent = [key for key in keys if key not in found]
    if store is CacheStore or not absent:
        return found
    model = store.get_model_class()
    rows = model._default_manager.using(primary(model)).filter(
        session_key__in=absent, expire_date__gt=timezone.now()
    )
    decode = store().decode
    found.update(
        (key, decode(data)) for key, data in rows.values_list("session_key", "session_data")
    )
    return found


def _users(keys: Sequence[Any]) -> dict[Any, Any]:
    model = get_user_model()
    return model._default_manager.using(primary(model)).in_bulk(keys) if keys else {}


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


def _store_class() -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore


def _stored(keys: set[str]) -> set[str] | None:
    """Those of the keys that have a session; None if the engine cannot be queried for many at
    once."""
    store = _store_class()
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
