"""Keys that check signatures, and which algorithms each may check.

Owns reading secrets and JSON Web Key Sets into keys, and finding the key that a token names. A key
is tied to the algorithms of its own type, so no token can have a public key used as a shared
secret. Which algorithms are allowed is decided elsewhere; nothing is fetched here, and no claim is
read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import jwt

logger = logging.getLogger("auth_rls.keys")

HMAC_ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})
RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512"})
ASYMMETRIC_ALGORITHMS: Final = RSA_ALGORITHMS | {"ES256", "ES384", "ES512", "EdDSA"}

# An elliptic curve key signs with the one algorithm of its curve.
_CURVES: Final = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
    ("OKP", "Ed448"): "EdDSA",
}


class KeySetError(Exception):
    """A key set cannot be read or fetched."""


class KeySource(Protocol):
    """An object in which keys are looked up."""

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key to check a token with, or None. Raises KeySetError when there is no set to look
        in."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key and the algorithms it may check. `own`: this project's own secret, which no other
    issuer signs with."""

    kid: str | None
    algorithms: frozenset[str]
    material: Any = field(repr=False, compare=False)
    own: bool = False

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's, made with `algorithm`."""
        if algorithm not in self.algorithms:
            return False
        return bool(jwt.get_algorithm_by_name(algorithm).verify(message, self.material, signature))


def secret(value: str | bytes) -> Key:
    """This project's shared secret as a key.

    Raises KeySetError when it is empty, and when it is a public key or certificate put there by
    mistake: everybody who knows the public key could sign with it.
    """
    try:
        material = jwt.get_algorithm_by_name("HS256").prepare_key(value)
    except jwt.InvalidKeyError as error:
        raise KeySetError(str(error)) from None
    if not material:
        raise KeySetError("the key is empty")
    return Key(None, HMAC_ALGORITHMS, material, own=True)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys that are all known."""

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, document: Any, *, secrets: bool, skip_broken: bool = False) -> KeySet:
        """The keys of a JWKS document.

        Keys for encryption and keys of unknown types are left out, and so are shared secrets
        (`oct`) unless `secrets` is true. Raises KeySetError for a key that cannot be read; with
        `skip_broken` such a key is left out with a line in the log.
        """
        listed = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(listed, list | tuple):
            raise KeySetError('a JWKS is an object with a list "keys"')
        keys: list[Key] = []
        for position, jwk in enumerate(listed):
            try:
                key = _key(jwk, secrets)
            except KeySetError as error:
                if not skip_broken:
                    raise KeySetError(f"keys[{position}]: {error}") from None
                logger.warning(
                    "JWKS keys[%d] is passed over: %s",
                    position,
                    error,
                    extra={"action": "jwks_key_ignored"},
                )
                continue
            if key is not None:
                keys.append(key)
        return cls(tuple(keys))

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key named `kid` if it may check `algorithm`.

        A token that names no key is checked with the only key for its algorithm. Where there are
        several the result is None.
        """
        suited = [key for key in self.keys if algorithm in key.algorithms]
        if kid is not None:
            return next((key for key in suited if key.kid == kid), None)
        return suited[0] if len(suited) == 1 else None

    @property
    def algorithms(self) -> frozenset[str]:
        """All algorithms that some key here may check."""
        return frozenset().union(*(key.algorithms for key in self.keys))


def _key(jwk: Any, secrets: bool) -> Key | None:
    if not isinstance(jwk, Mapping):
        raise KeySetError("a key is an object")
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeySetError("kid must be a string")
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (
        isinstance(operations, list) and not {"verify", "sign"} & set(map(str, operations))
    ):
        return None
    algorithms = _suited(jwk, secrets)
    named = jwk.get("alg")
    if named is not None:
        algorithms &= {str(named)}
    if not algorithms:
        return None
    handler = jwt.get_algorithm_by_name(min(algorithms))
    try:
        material = handler.from_jwk(dict(jwk))
    except (jwt.InvalidKeyError, ValueError, TypeError, KeyError) as error:
        raise KeySetError(f"not a usable {jwk.get('kty')} key ({type(error).__name__})") from None
    # A set may have private keys; only their public half is kept.
    public_half = getattr(material, "public_key", None)
    return Key(kid, algorithms, material if public_half is None else public_half())


def _suited(jwk: Mapping[str, Any], secrets: bool) -> frozenset[str]:
    match jwk.get("kty"):
        case "oct":
            return HMAC_ALGORITHMS if secrets else frozenset()
        case "RSA":
            return RSA_ALGORITHMS
        case "EC" | "OKP" as kind:
            algorithm = _CURVES.get((kind, str(jwk.get("crv"))))
            return frozenset() if algorithm is None else frozenset({algorithm})
        case None:
            raise KeySetError("kty is missing")
        case _:
            return frozenset()
