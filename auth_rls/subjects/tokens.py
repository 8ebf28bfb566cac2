"""JSON Web Tokens: whose signature they bear, and whether their claims are acceptable.

Owns the rules a token must meet and the words a refused one is refused with, which clients
know and show. Never touches the database and never decides who a token stands for.
"""

from __future__ import annotations

import base64
import json
import math
import time
from typing import Any, ClassVar, Final, NoReturn

import jwt

from auth_rls import conf
from auth_rls.keys import key_set

ROLES: Final = ("anon", "authenticated", "service_role")

# Above what any HTTP server takes as one header line, so a larger one came in a frame.
MAX_TOKEN_CHARS: Final = 16_384
# Far deeper than any real token, far from the interpreter's own recursion limit.
MAX_CLAIM_DEPTH: Final = 64
# The largest integer a double holds exactly: no clock reads more seconds.
_MAX_MOMENT: Final = 2**53


class TokenError(Exception):
    """A token is refused. `code` and `reason` are the protocol's own words; `str()` is both, as
    a join is refused; `handshake_reason` is what a refused connection is told."""

    code: ClassVar[str] = "InvalidJWTToken"
    default_reason: ClassVar[str] = "The token is not valid"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = self.default_reason if reason is None else reason
        super().__init__(f"{self.code}: {self.reason}")

    @property
    def handshake_reason(self) -> str:
        return self.reason


class InvalidToken(TokenError):
    """Well made and well signed, but its claims are not acceptable."""


class ExpiredToken(InvalidToken):
    """Its time has run out, `seconds` ago."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"Token has expired {seconds} seconds ago")

    @property
    def handshake_reason(self) -> str:
        return "Token has expired"


class MalformedToken(TokenError):
    """Not a JWT at all."""

    code = "MalformedJWT"
    default_reason = "The token provided is not a valid JWT"


class SignatureRefused(TokenError):
    """The signature is not one of our keys'."""

    code = "JwtSignatureError"
    default_reason = "Failed to validate JWT signature"


class SignerUnavailable(TokenError):
    """There is no key for it: its algorithm is not allowed, its key name is not known, or the
    key set cannot be had."""

    code = "JwtSignerError"
    default_reason = "Failed to generate JWT signer, check your JWT secret or JWKS configuration"


def verify(token: str, *, now: float | None = None) -> dict[str, Any]:
    """The claims of a token that is genuine and in force; `exp` is a whole number in them.

    `now` is in seconds since 1970, the clock's by default. Raises TokenError for every token
    that is not acceptable and nothing else on account of the token. With JWKS_URL it may wait
    for the network, so it raises SynchronousOnlyOperation on an event loop.
    """
    settings = conf.current()
    claims = _claims(_payload(token, settings))
    moment = time.time() if now is None else now
    _check_role_and_expiry(claims, settings, moment)
    _check_start(claims, settings, moment)
    if settings.audiences and not settings.audiences.intersection(_audiences(claims)):
        raise InvalidToken("Token audience is not accepted")
    if settings.issuers:
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in settings.issuers:
            raise InvalidToken("Token issuer is not accepted")
    return claims


def sign(claims: dict[str, Any]) -> str:
    """A token with these claims, signed with the first shared secret.

    Raises SignerUnavailable when the settings hold none.
    """
    settings = conf.current()
    algorithm = next(
        (name for name in settings.algorithms if name in key_set.HMAC_ALGORITHMS), None
    )
    if algorithm is None or not settings.secrets:
        raise SignerUnavailable
    header = json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":"))
    body = json.dumps(claims, separators=(",", ":"), allow_nan=False)
    message = b".".join(_base64url(part.encode()) for part in (header, body))
    signer = jwt.get_algorithm_by_name(algorithm)
    signature = signer.sign(message, settings.secrets[0].material)
    return b".".join((message, _base64url(signature))).decode("ascii")


def _payload(token: Any, settings: conf.AuthSettings) -> bytes:
    """The payload, once the signature is found to be right."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARS:
        raise MalformedToken
    if not token.isascii() or token.count(".") != 2:
        raise MalformedToken
    try:
        parts = jwt.api_jws.decode_complete(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        raise MalformedToken from None
    header = parts["header"]
    algorithm = header.get("alg")
    # The list decides, not the token: "none" and anything else not listed ends here.
    if not isinstance(algorithm, str) or algorithm not in settings.algorithms:
        raise SignerUnavailable
    message = token.rpartition(".")[0].encode("ascii")
    for key in _candidates(settings, header.get("kid"), algorithm):
        if key.verifies(algorithm, message, parts["signature"]):
            payload: bytes = parts["payload"]
            return payload
    raise SignatureRefused


def _candidates(
    settings: conf.AuthSettings, kid: str | None, algorithm: str
) -> tuple[key_set.Key, ...]:
    symmetric = algorithm in key_set.HMAC_ALGORITHMS
    # Secrets in a key set go by name only; a token that names none is the JWT_KEY's.
    if settings.key_source is not None and not (
        symmetric and (kid is None or not isinstance(settings.key_source, key_set.KeySet))
    ):
        try:
            key = settings.key_source.find(kid, algorithm)
        except key_set.KeySetError:
            raise SignerUnavailable from None
        if key is not None:
            return (key,)
    if symmetric and settings.secrets:
        return settings.secrets
    raise SignerUnavailable


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
        storable = b"\\u" not in payload or _storable(claims)
    except (ValueError, RecursionError):
        raise MalformedToken from None
    if not storable or not isinstance(claims, dict) or _deeper(claims, MAX_CLAIM_DEPTH):
        raise MalformedToken
    return claims


def _deeper(value: Any, limit: int) -> bool:
    """Whether containers nest more than `limit` deep; goes level by level, never recursing. How
    deep the parser itself goes differs between versions of Python."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _storable(value: Any) -> bool:
    """Whether all text in it is text that a database takes. Escapes can spell half a surrogate
    pair, or NUL, either of which would only fail much later, in somebody's query."""
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half a pair
        return "\0" not in value
    if isinstance(value, dict):
        return all(_storable(name) and _storable(item) for name, item in value.items())
    if isinstance(value, list):
        return all(_storable(item) for item in value)
    return True


def _check_role_and_expiry(
    claims: dict[str, Any], settings: conf.AuthSettings, moment: float
) -> None:
    role, expiry = claims.get(settings.role_claim), claims.get("exp")
    if not isinstance(role, str) or expiry is None:
        raise InvalidToken(f"Fields `{settings.role_claim}` and `exp` are required in JWT")
    if not _is_moment(expiry):
        raise InvalidToken("Token expiration time is invalid")
    claims["exp"] = round(expiry)
    if moment >= claims["exp"] + settings.leeway:
        raise ExpiredToken(int(moment - claims["exp"]))
    if role not in ROLES:
        raise InvalidToken(f"{settings.role_claim} must be one of {', '.join(ROLES)}")


def _check_start(claims: dict[str, Any], settings: conf.AuthSettings, moment: float) -> None:
    for name in ("iat", "nbf"):
        if claims.get(name) is not None and not _is_moment(claims[name]):
            raise InvalidToken(f"Field `{name}` must be a number")
    start = claims.get("nbf")
    if start is not None and moment < start - settings.leeway:
        raise InvalidToken("Token is not valid yet")


def _is_moment(value: Any) -> bool:
    # bool is an int to Python, and 1e999 is read as infinity.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) <= _MAX_MOMENT
    )


def _audiences(claims: dict[str, Any]) -> set[str]:
    value = claims.get("aud")
    listed = value if isinstance(value, list) else [value]
    return {name for name in listed if isinstance(name, str)}


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
