"""The credential of a client, and the subject that it stands for.

Owns the order in which a handshake is searched for a credential, and opaque keys. Whether an origin
may use its session is decided in `origin`; whether a token or a session is valid, in `auth_rls`.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from django.conf import settings
from django.http import parse_cookie

from auth_rls.subjects import tokens
from auth_rls.subjects.sessions import SessionProof, subject_of_session
from auth_rls.subjects.subject import Subject
from auth_rls.subjects.token_errors import RevokedToken, TokenError
from realtime.process import token_list
from realtime.subscriptions.known_users import KnownUsers
from realtime.util.database_threads import in_database_thread, in_few_database_threads

Headers = Iterable[tuple[bytes, bytes]]

# A value with this prefix is an opaque key and never a token, even if no setting names it.
OPAQUE_PREFIX = "sb_"


class UnknownKey(TokenError):
    """An opaque key that no setting names."""

    code = "InvalidApiKey"
    default_reason: ClassVar[str] = "The API key provided is not known"


class MissingCredential(TokenError):
    """The client has no credential, and anonymous clients may not connect."""

    code = "Unauthorized"
    default_reason: ClassVar[str] = "API key is missing"


class Kind(enum.Enum):
    """The kind of credential that a handshake carries."""

    TOKEN = "token"  # a JWT or an opaque key
    SESSION = "session"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential of a handshake. `value` is the token or key; `cookies` are filled for a
    session only. Neither appears in the repr."""

    kind: Kind
    value: str = field(default="", repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


NOTHING = Credential(Kind.NONE)


def from_handshake(headers: Headers, query_string: bytes, *, session: bool) -> Credential:
    """The first credential that a handshake has of these: Authorization Bearer, ?token=,
    x-api-key, ?apikey=, the Django session cookie. Empty values count as absent. Pure.

    `session`: whether a session may be used, by SESSION_AUTH and by the origin.
    """
    pairs = [(name.lower(), value.decode("latin-1")) for name, value in headers]
    query = parse_qsl(query_string.decode("latin-1"))
    for value in (
        _bearer(pairs),
        _first(query, "token"),
        _first(pairs, b"x-api-key"),
        _first(query, "apikey"),
    ):
        if value:
            return Credential(Kind.TOKEN, value)
    if session:
        cookies = _cookies(pairs)
        if cookies.get(settings.SESSION_COOKIE_NAME):
            return Credential(Kind.SESSION, cookies=cookies)
    return NOTHING


def _first(pairs: Iterable[tuple[Any, str]], name: str | bytes) -> str:
    return next((text for key, value in pairs if key == name and (text := value.strip())), "")


def _bearer(pairs: Iterable[tuple[bytes, str]]) -> str:
    for name, value in pairs:
        scheme, _, token = value.strip().partition(" ")
        if name == b"authorization" and scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return ""


def _cookies(pairs: Iterable[tuple[bytes, str]]) -> dict[str, str]:
    return parse_cookie("; ".join(value for name, value in pairs if name == b"cookie"))


@dataclass(frozen=True, slots=True)
class Identified:
    """The subject of a credential; `session` where that is a session with a user."""

    subject: Subject
    session: SessionProof | None = None


async def identify(
    credential: Credential,
    *,
    api_keys: Mapping[str, str],
    allow_anonymous: bool,
    users: KnownUsers | None = None,
) -> Identified:
    """The subject that the credential of a handshake or a request stands for. `users` looks up the
    users of many tokens and sessions at once, and keeps those it may; without it each is read.

    Only tokens that are genuine, and sessions, are looked up in the database. Raises TokenError,
    whose `handshake_reason` is for the client, when the credential is refused, and what the
    database raises.
    """
    match credential.kind:
        case Kind.TOKEN:
            value = credential.value
            return Identified(await identify_in_band(value, api_keys=api_keys, users=users))
        case Kind.SESSION:
            key = credential.cookies[settings.SESSION_COOKIE_NAME]
            if users is not None:
                found = await users.of_session(key)
            else:
                found = await in_few_database_threads(subject_of_session, key)
            if found is not None:
                return Identified(*found)
    if not allow_anonymous:
        raise MissingCredential
    return Identified(Subject.anonymous())


async def identify_in_band(
    value: str, *, api_keys: Mapping[str, str], users: KnownUsers | None = None
) -> Subject:
    """The subject that a token or key stands for, as a channel sends it. Raises as `identify`."""
    role = _role_of(value, api_keys)
    if role is not None:
        return Subject.of_role(role)
    if value.startswith(OPAQUE_PREFIX):
        raise UnknownKey
    await tokens.keys_loaded(value)
    verified = tokens.verified(value)
    if any(await token_list.denied([verified.claims])):
        raise RevokedToken
    if users is not None:
        return await users.of_token(verified)
    return await in_database_thread(Subject.from_verified, verified, unlisted=True)


def _role_of(value: str, api_keys: Mapping[str, str]) -> str | None:
    """The role of an opaque key; None if it is not known. Every key is compared, in constant time,
    so that the time does not show how much of a guess was right."""
    shown = value.encode("utf-8", "surrogatepass")
    found = None
    for key, role in api_keys.items():
        if hmac.compare_digest(shown, key.encode("utf-8", "surrogatepass")):
            found = role
    return found
