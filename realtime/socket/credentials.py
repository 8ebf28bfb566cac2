"""What a client shows at the door, and whom that makes it.

Owns the order in which a handshake is searched for a credential, opaque keys, and reading the
Django session. Whether an origin may use its session is `origin.py`'s to say, whether a token is
good `auth_rls`'s.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest, parse_cookie

from auth_rls.subjects.subject import Subject
from auth_rls.subjects.tokens import TokenError

Headers = Iterable[tuple[bytes, bytes]]

# Opaque keys of this look are never tokens, whether we know them or not.
OPAQUE_PREFIX = "sb_"


class UnknownKey(TokenError):
    """An opaque key that no setting names."""

    code = "InvalidApiKey"
    default_reason: ClassVar[str] = "The API key provided is not known"


class MissingCredential(TokenError):
    """Nothing was shown, and nobody may connect without."""

    code = "Unauthorized"
    default_reason: ClassVar[str] = "API key is missing"


class Kind(enum.Enum):
    """Which sort of credential a handshake carries."""

    TOKEN = "token"  # a JWT or an opaque key
    SESSION = "session"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Credential:
    """What was found. `value` is the token or key, `cookies` are filled for a session only;
    neither is ever printed."""

    kind: Kind
    value: str = field(default="", repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


NOTHING = Credential(Kind.NONE)


def from_handshake(headers: Headers, query_string: bytes, *, session: bool) -> Credential:
    """The credential of a handshake, first found: Authorization Bearer, ?token=, x-api-key,
    ?apikey=, the Django session cookie, nothing. Empty values count as absent. Pure.

    `session`: whether a session may be used at all, that is SESSION_AUTH and an Origin trusted
    with it.
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


def authenticate(
    credential: Credential, *, api_keys: Mapping[str, str], allow_anonymous: bool
) -> Subject:
    """Whom the credential of a handshake makes its bearer. Call it in a database thread.

    Raises TokenError, whose `handshake_reason` is for the client, when it is refused.
    """
    match credential.kind:
        case Kind.TOKEN:
            return _of_value(credential.value, api_keys)
        case Kind.SESSION:
            user = session_user(credential.cookies)
            if user is not None:
                return Subject.from_user(user)
    if not allow_anonymous:
        raise MissingCredential
    return Subject.anonymous()


def authenticate_in_band(value: str, *, api_keys: Mapping[str, str]) -> Subject:
    """Whom a value of `joins.token_in` makes its channel. Call it in a database thread.
    Raises TokenError, whose text is for the client, when it is refused."""
    return _of_value(value, api_keys)


def _of_value(value: str, api_keys: Mapping[str, str]) -> Subject:
    role = _role_of(value, api_keys)
    if role is not None:
        return Subject.of_role(role)
    if value.startswith(OPAQUE_PREFIX):
        raise UnknownKey
    return Subject.from_token(value)


def _role_of(value: str, api_keys: Mapping[str, str]) -> str | None:
    """The role of an opaque key. Every key is compared, in constant time: how long it takes
    tells nothing about how much of a guess was right."""
    shown = value.encode("utf-8", "surrogatepass")
    found = None
    for key, role in api_keys.items():
        if hmac.compare_digest(shown, key.encode("utf-8", "surrogatepass")):
            found = role
    return found


class _ReadOnlySession(dict[str, Any]):
    """What a session holds, for a reader who cannot send a cookie back.

    Django renews a session that an older SECRET_KEY signed under a new name, and drops one whose
    password changed. Done from a handshake, the first would log the browser out. The page's next
    request does both properly.
    """

    def cycle_key(self) -> None:
        """Nothing: see the class."""

    def flush(self) -> None:
        """Nothing: see the class."""


def session_user(cookies: Mapping[str, str], headers: Headers = ()) -> Any:
    """The active user whose Django session these cookies name, or None. Reads the session and
    the user, verified as `django.contrib.auth` does; writes nothing. Call it in a database thread.

    `headers` become the `META` of the request that an authentication backend may look at.
    """
    key = cookies.get(settings.SESSION_COOKIE_NAME)
    if not key or "\0" in key:  # PostgreSQL takes no NUL in text
        return None
    request = HttpRequest()
    request.COOKIES = dict(cookies)
    for name, value in headers:
        variable = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        request.META[variable] = value.decode("latin-1")
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    request.session = _ReadOnlySession(store.items())  # type: ignore[assignment]
    user = get_user(request)
    return user if user.is_authenticated and user.is_active else None
