"""Tokens as clients hold them, signed with the key that the tests and their servers have."""

from __future__ import annotations

import time
from typing import Any

import jwt

SECRET_KEY = "a-test-key-that-is-long-enough-for-hs256"


def token(
    sub: object = None,
    /,
    role: str | None = "authenticated",
    ttl: float = 3600,
    *,
    key: str = SECRET_KEY,
    **claims: Any,
) -> str:
    """A token of user `sub` (None: of no user) that is valid for `ttl` seconds; with a negative
    `ttl` it expired that long ago. `role` None names no role. `claims` come on top, as they are."""
    named: dict[str, Any] = {"exp": int(time.time() + ttl)}
    if sub is not None:
        named["sub"] = str(sub)
    if role is not None:
        named["role"] = role
    return jwt.encode({**named, **claims}, key, algorithm="HS256")


def bearer(value: str) -> dict[str, str]:
    """The headers that show this token."""
    return {"authorization": f"Bearer {value}"}
