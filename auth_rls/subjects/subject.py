"""Who asks: a role, the claims it came with, and the Django user behind it, if there is one.

Owns turning a verified token, a Django user or nobody into one frozen value that policies are
bound to. It reads the user from the database (so: call it in a database thread, never on an
event loop) and never decides what a subject may see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from auth_rls import conf
from auth_rls.predicates.kinds import Kind, from_text
from auth_rls.subjects import tokens

ANON: Final = "anon"
AUTHENTICATED: Final = "authenticated"
SERVICE_ROLE: Final = "service_role"


class Claims(Mapping[str, Any]):
    """Claims that cannot be changed: nested objects are `Claims` too, arrays are tuples.

    Two are equal when their JSON is, key order apart. So `1` and `true`, which Python holds
    equal, make different claims: a verdict cached for one must never answer for the other.
    """

    __slots__ = ("_items", "_text")

    def __init__(self, claims: Mapping[str, Any] | None = None) -> None:
        """Copies `claims` (JSON values only). ValueError when nested deeper than 64 levels."""
        self._items: dict[str, Any] = {
            str(name): _frozen(value, 1) for name, value in (claims or {}).items()
        }
        self._text = _canonical(self._items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Claims):
            return self._text == other._text
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._text == _canonical(dict(other))
        except (TypeError, ValueError, RecursionError):
            return False

    def __repr__(self) -> str:
        return f"Claims({self._text})"


def _canonical(items: dict[str, Any]) -> str:
    return json.dumps(items, sort_keys=True, separators=(",", ":"), default=dict)


def _frozen(value: Any, depth: int) -> Any:
    if depth > tokens.MAX_CLAIM_DEPTH:
        raise ValueError(f"claims are nested deeper than {tokens.MAX_CLAIM_DEPTH} levels")
    if isinstance(value, Mapping):
        nested = Claims()
        nested._items = {str(name): _frozen(item, depth + 1) for name, item in value.items()}
        nested._text = _canonical(nested._items)
        return nested
    if isinstance(value, list | tuple):
        return tuple(_frozen(item, depth + 1) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks. Compare and hash freely: the user object itself does not take part.

    `role` is "anon", "authenticated" or "service_role". `user_id` is the primary key of the
    Django user, or the user id claim as text where no such user exists, or None. `expires_at`
    is from when on the token is refused, in seconds since 1970, or None: its `exp` and the
    leeway. `bypasses_rls` is settled when the subject is made;
    `dataclasses.replace(subject, user=...)` settles it anew.
    """

    role: str
    claims: Mapping[str, Any] = field(default_factory=Claims)
    user_id: Any = None
    user: Any = field(default=None, compare=False, repr=False)
    expires_at: float | None = None
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
        # A token of role anon is a step down on purpose: its user's rank does not lift it.
        bypasses = self.role == SERVICE_ROLE or (self.role == AUTHENTICATED and superuser)
        object.__setattr__(self, "bypasses_rls", bypasses)

    @classmethod
    def from_token(cls, token: str) -> Subject:
        """The subject a JWT stands for. Reads the user from the database.

        Raises `tokens.TokenError` when the token is refused or its user is inactive. A user id
        claim that names no Django user is no error: such a subject holds no Django permission.
        """
        return cls.from_claims(tokens.verify(token))

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Subject:
        """The subject that the claims of a verified token stand for. They must name a role.

        Raises as `from_token` does for what a token's claims must not be.
        """
        settings = conf.current()
        role = claims[settings.role_claim]
        named = _user_id_text(claims.get(settings.user_id_claim), settings.user_id_claim)
        try:
            frozen = Claims(claims)
        except (ValueError, RecursionError):
            raise tokens.MalformedToken from None
        user = None if named is None else _active_user(named)
        return cls(
            role=role,
            claims=frozen,
            user_id=named if user is None else user.pk,
            # With role anon the token asks as nobody in particular: no permission is held.
            user=None if role == ANON else user,
            # With the leeway: what was just let in must not be thrown out at once.
            expires_at=claims["exp"] + settings.leeway if "exp" in claims else None,
        )

    @classmethod
    def from_user(cls, user: Any) -> Subject:
        """The subject of a Django user; one that is anonymous, inactive or unsaved asks as
        `anonymous()`. Makes no query."""
        if (
            user is None
            or not user.is_authenticated
            or not getattr(user, "is_active", False)
            or user.pk is None
        ):
            return cls.anonymous()
        settings = conf.current()
        claims = Claims({settings.user_id_claim: str(user.pk), settings.role_claim: AUTHENTICATED})
        return cls(role=AUTHENTICATED, claims=claims, user_id=user.pk, user=user)

    @classmethod
    def anonymous(cls) -> Subject:
        """Nobody: role anon."""
        return cls.of_role(ANON)

    @classmethod
    def service(cls) -> Subject:
        """A trusted program: role service_role, which bypasses row-level security."""
        return cls.of_role(SERVICE_ROLE)

    @classmethod
    def of_role(cls, role: str) -> Subject:
        """A subject that is only a role, as opaque keys name one. ValueError for no such role."""
        return cls(role=role, claims=Claims({conf.current().role_claim: role}))


def _user_id_text(claim: Any, name: str) -> str | None:
    """The user id claim as text. Absent, null and empty all mean that the token names nobody."""
    if claim is None or claim == "":
        return None
    if isinstance(claim, str):
        return claim
    if isinstance(claim, int) and not isinstance(claim, bool):
        return str(claim)
    raise tokens.InvalidToken(f"Field `{name}` must be a string or an integer")


def _active_user(named: str) -> Any:
    """The active Django user whose primary key is `named`, or None where there is none."""
    model = get_user_model()
    key = _primary_key(model, named)
    if key is None:
        return None
    user = model._default_manager.filter(pk=key).first()
    # A default manager may hide users (soft deletion): hidden is not the same as unknown.
    exists = user is not None or model._base_manager.filter(pk=key).exists()
    if exists and not getattr(user, "is_active", False):
        raise tokens.InvalidToken("The user of this token is inactive")
    return user


def _uuid_text(named: str) -> object:
    try:
        return from_text(Kind.UUID, named)
    except ValueError:
        return None


def _primary_key(model: Any, named: str) -> Any:
    """`named` as a value of the user model's primary key, or None if it cannot be one."""
    pk = model._meta.pk
    while pk.remote_field is not None:
        pk = pk.target_field
    if "\0" in named:
        return None  # PostgreSQL takes no NUL in text
    try:
        key = pk.to_python(named)
        pk.run_validators(key)
    except (ValidationError, ValueError, TypeError, OverflowError):
        return None
    # int() also reads " 7", "0_7" and digits of other scripts; only "7" names user 7.
    if isinstance(key, int) and str(key) != named:
        return None
    # UUID() reads as much; what names a user is what a policy would take for a UUID.
    if isinstance(key, UUID) and _uuid_text(named) != str(key):
        return None
    return key
