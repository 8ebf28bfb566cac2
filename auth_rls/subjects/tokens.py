"""JSON Web Tokens: whose signature they bear, and whether their claims are acceptable.

Owns the rules that a token must meet; what a refusal says is in `token_errors`. Never queries the
database and never decides which user a token stands for.

PyJWT takes tokens apart and checks signatures. Claims are checked here and not by `jwt.decode`,
because several keys may be tried for one token, because each refusal has its own text in the
protocol, and because values that databases and policies cannot store (half a surrogate pair, NUL,
deep nesting, moments beyond all clocks) must be refused here.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jwt

from auth_rls import conf
from auth_rls.conf import ROLES as ROLES
from auth_rls.keys import key_set
from auth_rls.keys.remote_key_set import RemoteKeySet
from auth_rls.subjects.claims import claim_at, same_json
from auth_rls.subjects.token_errors import ExpiredToken as ExpiredToken
from auth_rls.subjects.token_errors import InvalidToken as InvalidToken
from auth_rls.subjects.token_errors import MalformedToken as MalformedToken
from auth_rls.subjects.token_errors import RevokedToken as RevokedToken
from auth_rls.subjects.token_errors import SignatureRefused as SignatureRefused
from auth_rls.subjects.token_errors import SignerUnavailable as SignerUnavailable
from auth_rls.subjects.token_errors import TokenError as TokenError

# More than any HTTP server takes as one header line, so a larger token came in a frame.
MAX_TOKEN_CHARS: Final = 16_384
# Far deeper than any real token, and far from the interpreter's recursion limit.
MAX_CLAIM_DEPTH: Final = 64
# The largest integer that a double holds exactly: no clock reads more seconds.
_MAX_MOMENT: Final = 2**53
# Explicit types of JWTs (RFC 8725) that are access tokens, or do not name their use.
_TYPES: Final = frozenset({"jwt", "at+jwt"})
# Claims in which issuers write the use of a token, and the uses that give no access.
_USE_CLAIMS: Final = frozenset({"token_type", "token_use", "typ", "type"})
_NO_ACCESS: Final = frozenset({"refresh", "offline", "sliding_refresh", "logout"})


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that is genuine and in force. `role` is one of ROLES, after the role map; `own`:
    signed with this project's own secret."""

    claims: dict[str, Any]
    role: str
    own: bool


def verify(token: str, *, now: float | None = None) -> dict[str, Any]:
    """The claims of a token that is genuine and in force. See `verified`."""
    return verified(token, now=now).claims


def verified(token: str, *, now: float | None = None) -> VerifiedToken:
    """The claims of a token that is genuine and in force; `exp` is a whole number in them.

    `now` is in seconds since 1970, by default the clock's time. Raises TokenError for every token
    that is not acceptable, and no other error because of a token. With JWKS_URL the first call in a
    process may wait some seconds for the key set; on an event loop it never waits (see
    `keys_loaded`).
    """
    settings = conf.current()
    payload, own = _payload(token, settings)
    claims = _claims(payload)
    moment = time.time() if now is None else now
    _check_expiry(claims, settings, moment)
    role = role_of(claims, own=own)
    _check_start(claims, settings, moment)
    if settings.audiences and not settings.audiences.intersection(_audiences(claims)):
        raise InvalidToken("Token audience is not accepted")
    if settings.issuers:
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in settings.issuers:
            raise InvalidToken("Token issuer is not accepted")
    _check_use(claims, settings)
    return VerifiedToken(claims, role, own)


def role_of(claims: Mapping[str, Any], *, own: bool) -> str:
    """The role of claims, one of ROLES; `own`: the token is signed with our own secret.

    Raises InvalidToken for a role that does not exist, and for `service_role` where
    SERVICE_ROLE_TOKENS does not take it from such a token.
    """
    settings = conf.current()
    value = claim_at(claims, settings.role_claim)
    role = _mapped_role(value, settings)
    if role is None:
        if not isinstance(value, str):
            raise InvalidToken(f"Fields `{settings.role_claim}` and `exp` are required in JWT")
        raise InvalidToken(f"{settings.role_claim} must be one of {', '.join(ROLES)}")
    if role == "service_role" and not may_bypass(own=own):
        raise InvalidToken("The role service_role is not accepted from this token")
    return role


def may_bypass(*, own: bool) -> bool:
    """Whether a token may let its subject bypass row-level security. `own`: it is signed with our
    own secret."""
    accepted = conf.current().service_role_tokens
    return accepted == "any" or (accepted == "own" and own)


async def keys_loaded(token: str) -> None:
    """Wait until the key set that a token may need, at JWKS_URL, has been read once or could not be
    read. Returns at once where none is needed or one is known. Occupies no thread."""
    source = conf.current().key_source
    if isinstance(source, RemoteKeySet) and _names_public_key(token):
        await source.loaded()


def _names_public_key(token: str) -> bool:
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        return False
    return algorithm in conf.current().algorithms and algorithm not in key_set.HMAC_ALGORITHMS


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


def _payload(token: Any, settings: conf.AuthSettings) -> tuple[bytes, bool]:
    """The payload of a token whose signature is right, and whether our own secret made it. Raises
    TokenError."""
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
    # The settings list the algorithms: "none" and any other that is not listed is refused.
    if not isinstance(algorithm, str) or algorithm not in settings.algorithms:
        raise SignerUnavailable
    message = token.rpartition(".")[0].encode("ascii")
    for key in _candidates(settings, header.get("kid"), algorithm):
        if key.verifies(algorithm, message, parts["signature"]):
            if not _is_access_type(header.get("typ")):
                raise InvalidToken("Token type is not accepted")
            return parts["payload"], key.own
    raise SignatureRefused


def _candidates(
    settings: conf.AuthSettings, kid: str | None, algorithm: str
) -> tuple[key_set.Key, ...]:
    symmetric = algorithm in key_set.HMAC_ALGORITHMS
    # A secret in a key set is only used by name; a token without a key name is for the JWT_KEY.
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
    """Whether containers nest more than `limit` deep. Works level by level and not by recursion,
    because the parser's own limit differs between versions of Python."""
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
    """Whether a database can store all text in `value`. Escapes can spell half a surrogate pair or
    NUL, which would fail later, in a query."""
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half a pair
        return "\0" not in value
    if isinstance(value, dict):
        return all(_storable(name) and _storable(item) for name, item in value.items())
    if isinstance(value, list):
        return all(_storable(item) for item in value)
    return True


def _is_access_type(value: Any) -> bool:
    # Tokens for another use, such as "logout+jwt", have a right signature too.
    if value is None:
        return True
    return isinstance(value, str) and value.lower().removeprefix("application/") in _TYPES


def _check_expiry(claims: dict[str, Any], settings: conf.AuthSettings, moment: float) -> None:
    expiry = claims.get("exp")
    if expiry is None:
        raise InvalidToken(f"Fields `{settings.role_claim}` and `exp` are required in JWT")
    if not _is_moment(expiry):
        raise InvalidToken("Token expiration time is invalid")
    claims["exp"] = round(expiry)
    if moment >= claims["exp"] + settings.leeway:
        raise ExpiredToken(int(moment - claims["exp"]))


def _mapped_role(value: Any, settings: conf.AuthSettings) -> str | None:
    """The role for a value of the role claim; None where it stands for none."""
    if value is None:
        return settings.default_role
    # Groups and roles of identity providers are lists. Only values in the map count.
    listed = value if isinstance(value, list | tuple) and settings.role_map else [value]
    for claimed, role in settings.role_map:
        if any(same_json(claimed, each) for each in listed):
            return role
    if listed is value:
        return settings.default_role
    return value if isinstance(value, str) and value in ROLES else None


def _check_use(claims: dict[str, Any], settings: conf.AuthSettings) -> None:
    for name, wanted in settings.required_claims:
        if not same_json(claim_at(claims, name), wanted):
            raise InvalidToken(f"Field `{name}` is not as required")
    # A claim that a setting requires was checked above.
    demanded = {name for name, _ in settings.required_claims}
    for name in _USE_CLAIMS - demanded:
        use = claims.get(name)
        if isinstance(use, str) and use.lower() in _NO_ACCESS:
            raise InvalidToken(f"A token of use {use!r} gives no access")


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
