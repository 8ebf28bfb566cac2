"""The setting AUTH_RLS, read once, checked, and frozen.

Owns names, defaults and validation of every key. Verifies no token. A mistake raises
ImproperlyConfigured, with the key's name in it, when the settings are first used.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from auth_rls.keys.key_set import (
    ASYMMETRIC_ALGORITHMS,
    HMAC_ALGORITHMS,
    Key,
    KeySet,
    KeySetError,
    KeySource,
    secret,
)
from auth_rls.keys.remote_key_set import RemoteKeySet

ALGORITHMS: Final = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
KEYS: Final = (
    *("JWT_KEY", "JWT_ALGORITHMS", "JWKS", "JWKS_URL", "JWT_AUDIENCE", "JWT_ISSUER"),
    *("JWT_LEEWAY", "USER_ID_CLAIM", "USER_FIELD", "ROLE_CLAIM", "DEFAULT_ROLE", "ROLE_MAP"),
    *("REQUIRED_CLAIMS", "SERVICE_ROLE_TOKENS", "LOG_EVENTS", "POLICY_MODELS"),
)
ROLES: Final = ("anon", "authenticated", "service_role")
EVENTS: Final = ("applied", "denied", "bypassed")
_BYPASSING: Final = ("own", "any", "never")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """The validated AUTH_RLS.

    `secrets` check the HS algorithms; the first one signs. `user_id_claims` are tried in order.
    `role_map` is tried in its own order. `maps_foreign_users`: whether AUTH_RLS says for which user
    a token stands that was signed by a key of JWKS. `log_events` are the kinds of event to log,
    `policy_models` labels of models in lower case.
    """

    secrets: tuple[Key, ...]
    algorithms: tuple[str, ...]
    key_source: KeySource | None
    audiences: frozenset[str]
    issuers: frozenset[str]
    leeway: float
    user_id_claims: tuple[str, ...]
    user_field: str
    maps_foreign_users: bool
    role_claim: str
    default_role: str | None
    role_map: tuple[tuple[str | int | bool, str], ...]
    required_claims: tuple[tuple[str, Any], ...]
    service_role_tokens: str
    log_events: frozenset[str]
    policy_models: frozenset[str]


@functools.cache
def current() -> AuthSettings:
    """The settings in force. Raises ImproperlyConfigured, naming the key, if they are wrong."""
    given = getattr(settings, "AUTH_RLS", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"AUTH_RLS must be a dict, not {type(given).__name__}.")
    for key in given:
        if key not in KEYS:
            raise ImproperlyConfigured(f"AUTH_RLS has no key {key!r}{_suggestion(key)}")
    algorithms = _algorithms(given.get("JWT_ALGORITHMS", ["HS256"]))
    key_source = _key_source(given, algorithms)
    return AuthSettings(
        secrets=_secrets(given, algorithms, key_source),
        algorithms=algorithms,
        key_source=key_source,
        audiences=_names(given, "JWT_AUDIENCE"),
        issuers=_names(given, "JWT_ISSUER"),
        leeway=_leeway(given.get("JWT_LEEWAY", 0)),
        user_id_claims=_user_id_claims(given.get("USER_ID_CLAIM", "sub")),
        user_field=_text(given, "USER_FIELD", "pk", "the name of a field of the user model"),
        maps_foreign_users="USER_ID_CLAIM" in given or "USER_FIELD" in given,
        role_claim=_text(given, "ROLE_CLAIM", "role", "the name of a claim"),
        default_role=_default_role(given.get("DEFAULT_ROLE", "authenticated")),
        role_map=_role_map(given.get("ROLE_MAP", {})),
        required_claims=_required_claims(given.get("REQUIRED_CLAIMS", {})),
        service_role_tokens=_service_role_tokens(given.get("SERVICE_ROLE_TOKENS", "own")),
        log_events=_events(given.get("LOG_EVENTS", False)),
        policy_models=_labels(given.get("POLICY_MODELS", [settings.AUTH_USER_MODEL])),
    )


def _forget(*, setting: str, **_: Any) -> None:
    if setting in {"AUTH_RLS", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "AUTH_USER_MODEL"}:
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="auth_rls.conf")


def _suggestion(key: Any) -> str:
    close = difflib.get_close_matches(str(key).upper(), KEYS, n=1)
    return f": did you mean {close[0]!r}?" if close else f". Its keys are {', '.join(KEYS)}."


def _algorithms(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise ImproperlyConfigured(
            'AUTH_RLS["JWT_ALGORITHMS"] must be a list of names, such as ["HS256"].'
        )
    for name in value:
        if name not in ALGORITHMS:
            raise ImproperlyConfigured(
                f'AUTH_RLS["JWT_ALGORITHMS"] holds {name!r}; possible are {", ".join(ALGORITHMS)}.'
            )
    return tuple(dict.fromkeys(value))


def _key_source(given: Mapping[str, Any], algorithms: tuple[str, ...]) -> KeySource | None:
    document, url = given.get("JWKS"), given.get("JWKS_URL")
    if document is not None and url is not None:
        raise ImproperlyConfigured("AUTH_RLS takes JWKS or JWKS_URL, not both.")
    asymmetric = ASYMMETRIC_ALGORITHMS.intersection(algorithms)
    if document is not None:
        try:
            key_set = KeySet.parse(document, secrets=True)
        except KeySetError as error:
            raise ImproperlyConfigured(f'AUTH_RLS["JWKS"]: {error}.') from None
        if not key_set.algorithms.intersection(algorithms):
            raise ImproperlyConfigured(
                f'AUTH_RLS["JWKS"] holds no key for JWT_ALGORITHMS ({", ".join(algorithms)}); '
                f"its keys are for: {', '.join(sorted(key_set.algorithms)) or 'none'}."
            )
        return key_set
    if url is not None:
        if not asymmetric:
            raise ImproperlyConfigured(
                'AUTH_RLS["JWKS_URL"] serves public keys: name their algorithm in '
                'JWT_ALGORITHMS too, such as ["RS256"].'
            )
        try:
            return RemoteKeySet(str(url))
        except ValueError as error:
            raise ImproperlyConfigured(f'AUTH_RLS["JWKS_URL"]: {error}.') from None
    if asymmetric:
        raise ImproperlyConfigured(
            f'AUTH_RLS["JWT_ALGORITHMS"] allows {", ".join(sorted(asymmetric))}, '
            "whose public keys must come from JWKS or JWKS_URL."
        )
    return None


def _secrets(
    given: Mapping[str, Any], algorithms: tuple[str, ...], source: KeySource | None
) -> tuple[Key, ...]:
    if not HMAC_ALGORITHMS.intersection(algorithms):
        return ()
    if "JWT_KEY" not in given:
        # Django's own rotation: signatures of an older SECRET_KEY are valid while it is listed.
        values = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    elif given["JWT_KEY"] is None and isinstance(source, KeySet):
        if not HMAC_ALGORITHMS & source.algorithms:
            raise ImproperlyConfigured(_NO_SECRET)
        return ()
    else:
        values = [given["JWT_KEY"]]
    keys = []
    for value in values:
        if not isinstance(value, str | bytes) or not value:
            raise ImproperlyConfigured(_NO_SECRET)
        try:
            keys.append(secret(value))
        except KeySetError:
            raise ImproperlyConfigured(
                'AUTH_RLS["JWT_KEY"] is the shared secret of the HS algorithms; a public key or '
                "certificate belongs in JWKS."
            ) from None
    return tuple(keys)


_NO_SECRET: Final = (
    'AUTH_RLS["JWT_KEY"] must be a non-empty string: the shared secret of the HS algorithms. '
    "Leave it out to use SECRET_KEY."
)


def _names(given: Mapping[str, Any], key: str) -> frozenset[str]:
    value = given.get(key)
    if value is None:
        return frozenset()
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list | tuple | set | frozenset)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise ImproperlyConfigured(f'AUTH_RLS["{key}"] must be a string or a list of strings.')
    return frozenset(names)


def _leeway(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not math.isfinite(seconds)
        or seconds < 0
    ):
        raise ImproperlyConfigured('AUTH_RLS["JWT_LEEWAY"] must be a number of seconds from 0 up.')
    return float(seconds)


def _text(given: Mapping[str, Any], key: str, default: str, what: str) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or not value:
        raise ImproperlyConfigured(f'AUTH_RLS["{key}"] must be {what}.')
    return value


def _user_id_claims(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise ImproperlyConfigured(
            'AUTH_RLS["USER_ID_CLAIM"] must be the name of a claim, or a list of names.'
        )
    return tuple(names)


def _default_role(value: Any) -> str | None:
    # A token that names no role must not become a trusted program.
    if value is not None and value not in ("anon", "authenticated"):
        raise ImproperlyConfigured(
            f'AUTH_RLS["DEFAULT_ROLE"] must be "anon", "authenticated" or None, not {value!r}.'
        )
    return None if value is None else str(value)


def _role_map(value: Any) -> tuple[tuple[str | int | bool, str], ...]:
    if not isinstance(value, Mapping) or not all(
        isinstance(claimed, str | int) and role in ROLES for claimed, role in value.items()
    ):
        raise ImproperlyConfigured(
            'AUTH_RLS["ROLE_MAP"] must be a dict from values of the role claim to roles '
            f'({", ".join(ROLES)}), such as {{"staff": "authenticated"}}.'
        )
    return tuple(value.items())


def _required_claims(value: Any) -> tuple[tuple[str, Any], ...]:
    if (
        not isinstance(value, Mapping)
        or not all(isinstance(name, str) and name for name in value)
        or None in value.values()
    ):
        raise ImproperlyConfigured(
            'AUTH_RLS["REQUIRED_CLAIMS"] must be a dict from claims to the values they must have, '
            'such as {"token_type": "access"}.'
        )
    return tuple(value.items())


def _service_role_tokens(value: Any) -> str:
    if value not in _BYPASSING:
        raise ImproperlyConfigured(
            'AUTH_RLS["SERVICE_ROLE_TOKENS"] must be "own" (tokens signed with JWT_KEY), "any" or '
            f'"never", not {value!r}.'
        )
    return str(value)


def _labels(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(label, str) and len(label.split(".")) == 2 and all(label.split("."))
        for label in value
    ):
        raise ImproperlyConfigured(
            'AUTH_RLS["POLICY_MODELS"] must be a list of models, each written "app.Model", '
            f"not {value!r}."
        )
    return frozenset(label.lower() for label in value)


def _events(value: Any) -> frozenset[str]:
    if isinstance(value, bool):
        return frozenset(EVENTS if value else ())
    if isinstance(value, list | tuple | set | frozenset) and all(name in EVENTS for name in value):
        return frozenset(value)
    raise ImproperlyConfigured(
        'AUTH_RLS["LOG_EVENTS"] must be True, False, or a list of some of '
        f"{', '.join(EVENTS)}, not {value!r}."
    )
