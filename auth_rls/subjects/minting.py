"""The claims of a token that this project's own settings accept.

Owns what such a token must say besides whom it stands for. Signing is `tokens.sign`.
"""

from __future__ import annotations

import time
from typing import Any

from auth_rls import conf
from auth_rls.subjects.claims import put_claim


def claims_for(named: str | None, role: str, ttl: int) -> dict[str, Any]:
    """Claims of a token that is good for `ttl` seconds. `named` is what its user id claim says;
    None for a token of nobody. Raises ImproperlyConfigured for settings that cannot be used."""
    settings = conf.current()
    claims: dict[str, Any] = {}
    for required, value in settings.required_claims:
        put_claim(claims, required, value)
    put_claim(claims, settings.role_claim, role)
    if named:
        put_claim(claims, settings.user_id_claims[0], named)
    return {**claims, **issuance(ttl)}


def issuance(ttl: int) -> dict[str, Any]:
    """The claims of who issues a token, for whom, and for how many seconds it is good: `iss` and
    `aud` where the settings name any, `iat` and `exp`."""
    settings = conf.current()
    claims: dict[str, Any] = {}
    if settings.issuers:
        claims["iss"] = min(settings.issuers)
    if settings.audiences:
        claims["aud"] = min(settings.audiences)
    now = int(time.time())
    return {**claims, "iat": now, "exp": now + ttl}
