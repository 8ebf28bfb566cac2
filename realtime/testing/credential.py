"""The token that a test's client connects with, for the user or subject that it names."""

from __future__ import annotations

from typing import Any

from auth_rls import conf
from auth_rls.explain.askers import asker_for
from auth_rls.subjects import minting, tokens
from auth_rls.subjects.subject import ANON, Subject, user_id_of

_SECONDS = 3600


def token_for(who: Any) -> str | None:
    """A token of a Django user or a `Subject`; None for somebody anonymous, who has none. That of
    an inactive user is one that the server refuses. Raises TypeError for anything else."""
    if isinstance(who, Subject):
        if who == Subject.anonymous():
            return None
        claims = {**_plain(who.claims), **minting.issuance(_SECONDS)}
        return tokens.sign(claims)
    if asker_for(who).subject.role == ANON and not who.is_authenticated:
        return None
    return tokens.sign(minting.claims_for(user_id_of(who), "authenticated", _SECONDS))


def signing_settings(given: dict[str, Any]) -> dict[str, Any] | None:
    """AUTH_RLS with a secret to sign with, for a project whose tokens are all signed elsewhere;
    None where there is one."""
    settings = conf.current()
    if settings.secrets:
        return None
    secret = "rowcast-testing-signs-with-this-secret-and-nobody-else"
    return {**given, "JWT_KEY": secret, "JWT_ALGORITHMS": [*settings.algorithms, "HS256"]}


def _plain(value: Any) -> Any:
    """Frozen claims as JSON values."""
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
