"""Keys of every algorithm, tokens that they sign, and what a refused one is refused with."""

from __future__ import annotations

import base64
from typing import Any

import jwt
import pytest

from auth_rls.subjects import tokens

KEY = "a-test-key-that-is-long-enough-for-hs512-too-if-it-is-written-out-in-full"


NOW = 1_800_000_000.0


GOOD = {"role": "authenticated", "sub": "7", "exp": int(NOW) + 60}


def signed(claims: Any = None, key: Any = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """A token of any claims, key, algorithm and header; `support.tokens.token` makes the usual."""
    return jwt.encode(GOOD if claims is None else claims, key, algorithm, headers=header or None)


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def refusal(text: Any, now: float = NOW) -> str:
    with pytest.raises(tokens.TokenError) as caught:
        tokens.verify(text, now=now)
    return str(caught.value)


NO_SIGNER = (
    "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration"
)


BAD_SIGNATURE = "JwtSignatureError: Failed to validate JWT signature"


HS256 = b'{"alg":"HS256"}'


def public_jwk(key: Any, algorithm: str, kid: str | None, **extra: Any) -> dict[str, Any]:
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, **({} if kid is None else {"kid": kid}), **extra}
