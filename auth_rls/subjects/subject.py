"""The subject of a request or connection: a role, claims, and the Django user behind them, if any.

Owns making one frozen value, to which policies are bound, of a verified token or a Django user. It
reads the user from the database, so it is called in a database thread and never on an event loop.
What a subject may see is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from django.contrib.auth import get_user_model

from auth_rls import conf
from auth_rls.subjects import denylist, tokens
from auth_rls.subjects.claims import claim_at, put_claim
from auth_rls.subjects.user_lookup import field_value, users_named

ANON: Final = "anon"
AUTHENTICATED: Final = "authenticated"
SERVICE_ROLE: Final = "service_role"


class Claims(Mapping[str, Any]):
    """Claims that cannot be changed: nested objects are `Claims` too, arrays are tuples.

    Two are equal if their JSON is equal, in any order of keys. So `1` and `true`, which are equal
    in Python, make different claims: a verdict cached for one must not be used for the other.
    """

    # The JSON alone, since it takes a third of the memory of its values and few policies read them.
    __slots__ = ("_text",)

    def __init__(self, claims: Mapping[str, Any] | None = None) -> None:
        """Copies `claims`, which hold JSON values only. Raises ValueError when they are nested
        deeper than 64 levels."""
        self._text = _canonical(claims or {})

    def __getitem__(self, name: str) -> Any:
        return _values_in(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_values_in(self._text))

    def __len__(self) -> int:
        return len(_values_in(self._text))

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Claims):
            return self._text == other._text
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._text == _canonical(other)
        except (TypeError, ValueError, RecursionError):
            return False

    def __repr__(self) -> str:
        return f"Claims({self._text})"


def _canonical(claims: Mapping[str, Any]) -> str:
    return json.dumps(_plain(claims, 0), sort_keys=True, separators=(",", ":"))


def _plain(value: Any, depth: int) -> Any:
    """The value with every mapping as a dict of text keys."""
    if depth > tokens.MAX_CLAIM_DEPTH:
        raise ValueError(f"claims are nested deeper than {tokens.MAX_CLAIM_DEPTH} levels")
    if isinstance(value, Mapping):
        return {str(name): _plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value


@lru_cache(maxsize=8)
def _claims_of_role(path: str, role: str) -> Claims:
    """The claims of a subject that is only a role. There are three of them, for many sockets."""
    claims: dict[str, Any] = {}
    put_claim(claims, path, role)
    return Claims(claims)


@lru_cache(maxsize=64)
def _values_in(text: str) -> Mapping[str, Any]:
    """The claims in their JSON. Kept for those that were read last: a policy reads several."""
    return {name: _frozen(value) for name, value in json.loads(text).items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return Claims(value)
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Subject:
    """A role, claims, and a user id. Compared and hashed by value, without the user object.

    `role` is "anon", "authenticated" or "service_role". `user_id` is the primary key of the
    Django user, or the user id claim as text where no such user exists, or None. `expires_at` is
    the moment from which the token is refused, in seconds since 1970: its `exp` and the leeway;
    None for a subject without a token. `may_bypass`: whether its credential allows that row-level
    security does not apply to it. `bypasses_rls` is computed when the subject is made, and again by
    `dataclasses.replace(subject, user=...)`. Raises ValueError for an unknown role.
    """

    role: str
    claims: Mapping[str, Any] = field(default_factory=Claims)
    user_id: Any = None
    user: Any = field(default=None, compare=False, repr=False)
    expires_at: float | None = None
    may_bypass: bool = True
    bypasses_rls: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.role not in tokens.ROLES:
            raise ValueError(f"role must be one of {', '.join(tokens.ROLES)}, not {self.role!r}")
        if not isinstance(self.claims, Claims):
            object.__setattr__(self, "claims", Claims(self.claims))
        superuser = (
            self.user is not None
            and bool(getattr(self.user, "is_active", False))
            and bool(getattr(self.user, "is_superuser", False))
        )
        # A token of role anon gives up rights on purpose, also for a superuser.
        bypasses = self.role == SERVICE_ROLE or (self.role == AUTHENTICATED and superuser)
        object.__setattr__(self, "bypasses_rls", self.may_bypass and bypasses)

    @classmethod
    def from_token(cls, token: str) -> Subject:
        """The subject that a JWT stands for. Queries the database for the user.

        Raises `TokenError` when the token is refused or its user is inactive. A user id
        claim that names no Django user is no error: such a subject holds no Django permission.
        """
        return cls.from_verified(tokens.verified(token))

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Subject:
        """The subject that a token of our own with these claims would stand for.

        Raises as `from_token` does for what a token's claims must not be.
        """
        return cls.from_verified(
            tokens.VerifiedToken(dict(claims), tokens.role_of(claims, own=True), own=True)
        )

    @classmethod
    def from_verified(cls, token: tokens.VerifiedToken, *, unlisted: bool = False) -> Subject:
        """As `from_token`, for a token whose signature and claims have been checked. `unlisted`:
        the project's list of refused tokens was asked, and does not have it."""
        if not unlisted and denylist.in_use() and any(denylist.denied([token.claims])):
            raise tokens.RevokedToken
        named = user_named_by(token)
        found = None if named is None else users_named([named])[named]
        return cls.of_user_found(token, found)

    @classmethod
    def of_user_found(cls, token: tokens.VerifiedToken, found: Any) -> Subject:
        """As `from_verified`, for the user that `users_named` has found for `user_named_by(token)`,
        or the error; None where it names nobody. Makes no query."""
        if isinstance(found, tokens.TokenError):
            # Of several tokens, perhaps; each has a traceback of its own.
            raise type(found)(found.reason)
        settings = conf.current()
        named = _named(token.claims, settings)
        try:
            frozen = Claims(token.claims)
        except (ValueError, RecursionError):
            raise tokens.MalformedToken from None
        mapped = _mapped(token, settings)
        user = found
        if user is not None:
            user_id = user.pk
        elif named is None or _may_name_another(named, mapped, settings):
            user_id = None
        else:
            user_id = named
        return cls(
            role=token.role,
            claims=frozen,
            user_id=user_id,
            # With role anon the permissions of the user do not count.
            user=None if token.role == ANON else user,
            # With the leeway: a token that was just accepted must not be refused at once.
            expires_at=token.claims["exp"] + settings.leeway if "exp" in token.claims else None,
            may_bypass=tokens.may_bypass(own=token.own),
        )

    @classmethod
    def from_user(cls, user: Any) -> Subject:
        """The subject of a Django user; `anonymous()` for one that is anonymous, inactive or
        unsaved. Makes no query."""
        if (
            user is None
            or not user.is_authenticated
            or not getattr(user, "is_active", False)
            or user.pk is None
        ):
            return cls.anonymous()
        settings = conf.current()
        claims: dict[str, Any] = {}
        put_claim(claims, settings.user_id_claims[0], user_id_of(user))
        put_claim(claims, settings.role_claim, AUTHENTICATED)
        return cls(role=AUTHENTICATED, claims=Claims(claims), user_id=user.pk, user=user)

    @classmethod
    def anonymous(cls) -> Subject:
        """The subject without a credential: role anon."""
        return cls.of_role(ANON)

    @classmethod
    def service(cls) -> Subject:
        """A trusted program: role service_role, which bypasses row-level security."""
        return cls.of_role(SERVICE_ROLE)

    @classmethod
    def of_role(cls, role: str) -> Subject:
        """A subject that is only a role, as opaque keys name one. Raises ValueError for an unknown
        role."""
        return cls(role=role, claims=_claims_of_role(conf.current().role_claim, role))


def user_id_of(user: Any) -> str:
    """The user id claim of a token that stands for `user`, by the setting USER_FIELD."""
    field = conf.current().user_field
    return str(user.pk if field == "pk" else getattr(user, field))


def user_named_by(token: tokens.VerifiedToken) -> str | None:
    """What the token names its Django user by, by the setting USER_FIELD; None if it names none.
    Raises InvalidToken for a user id claim that is neither text nor a whole number."""
    settings = conf.current()
    named = _named(token.claims, settings)
    return named if _mapped(token, settings) else None


def _mapped(token: tokens.VerifiedToken, settings: conf.AuthSettings) -> bool:
    # A user id of another issuer does not name a user of ours, unless a setting says so.
    return token.own or settings.maps_foreign_users


def _named(claims: Mapping[str, Any], settings: conf.AuthSettings) -> str | None:
    """The first of the user id claims that is present, as text. None if all of them are absent,
    null or empty."""
    for name in settings.user_id_claims:
        claim = claim_at(claims, name)
        if claim is None or claim == "":
            continue
        if isinstance(claim, str):
            return claim
        if isinstance(claim, int) and not isinstance(claim, bool):
            return str(claim)
        raise tokens.InvalidToken(f"Field `{name}` must be a string or an integer")
    return None


def _may_name_another(named: str, mapped: bool, settings: conf.AuthSettings) -> bool:
    """Whether `named`, which names no Django user, would equal the primary key of one in a policy's
    `$user.id`."""
    if mapped and settings.user_field == "pk":
        return False
    return field_value(get_user_model()._meta.pk, named) is not None
