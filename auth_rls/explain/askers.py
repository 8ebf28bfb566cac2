"""The subject of a question, from what people give: a user's name, claims, a role, or a token.

Owns the subject's description in words. It reads users and never evaluates a policy. Call it in a
database thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError

from auth_rls import conf
from auth_rls.explain.errors import ExplainError
from auth_rls.sql.primary import primary
from auth_rls.subjects import tokens
from auth_rls.subjects.claims import claim_at, put_claim
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import ANON, AUTHENTICATED, SERVICE_ROLE, Subject, user_id_of

_INACTIVE: Final = "The user is inactive, and every door refuses."


@dataclass(frozen=True, slots=True)
class Asker:
    """The subject of a question, and its description in `words`."""

    subject: Subject
    user: Any
    words: str
    refused: str = ""


def asker(
    *,
    user: str | None = None,
    claims: Mapping[str, Any] | None = None,
    role: str | None = None,
    token: str | None = None,
) -> Asker:
    """The subject by one of: a Django user's name or primary key, the claims of a token, a role,
    or a token. Claims and a role may go with a user. Raises ExplainError."""
    if token:
        if user or role or claims is not None:
            raise ExplainError("token", "A token names the subject; give nothing beside it.")
        return _of_token(token)
    if role is not None and role not in tokens.ROLES:
        raise ExplainError("role", f"The role is one of {', '.join(tokens.ROLES)}, not {role!r}.")
    found = find_user(user) if user else None
    if claims is not None or (found is not None and role not in (None, AUTHENTICATED)):
        return _of_claims(found, claims or {}, role)
    if found is not None:
        return asker_for(found)
    if role == ANON:
        return _anybody()
    if role == SERVICE_ROLE:
        return _plain(Subject.service())
    raise ExplainError("user", "Say who asks: a user, claims, a token, or the role anon.")


def asker_for(who: Any) -> Asker:
    """The subject that a `Subject` or a Django user is. Raises TypeError for anything else."""
    if isinstance(who, Subject):
        return _plain(who)
    if subject_of(who) is None:
        return Asker(Subject.anonymous(), who, _name_of(who), _INACTIVE)
    if not who.is_authenticated:
        return _anybody()
    return Asker(Subject.from_user(who), who, _name_of(who))


def claims_from(text: str) -> dict[str, Any]:
    """The claims in a text that is a JSON object. Raises ExplainError."""
    try:
        claims = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExplainError("claims", f"This is not JSON: {error}.") from None
    if not isinstance(claims, dict):
        raise ExplainError("claims", 'Claims are a JSON object, such as {"tenant": 7}.')
    return claims


def find_user(name: str) -> Any:
    """The Django user with this name, else with this primary key. Raises ExplainError."""
    model = get_user_model()
    users = model._base_manager.using(primary(model))
    found = users.filter(**{model.USERNAME_FIELD: name}).first()
    if found is None:
        try:
            found = users.filter(pk=name).first()
        except (ValueError, TypeError, OverflowError, ValidationError):
            found = None
    if found is None:
        raise ExplainError("user", f"There is no user with the name or primary key {name!r}.")
    return found


def _of_token(token: str) -> Asker:
    try:
        subject = Subject.from_token(token.strip())
    except tokens.TokenError as error:
        raise ExplainError("token", f"The token is refused: {error.reason}.") from None
    return _with_words(subject)


def _of_claims(user: Any, claims: Mapping[str, Any], role: str | None) -> Asker:
    settings = conf.current()
    meant = dict(claims)
    user_id_claim, role_claim = settings.user_id_claims[0], settings.role_claim
    for claim, value, field in (
        (user_id_claim, None if user is None else user_id_of(user), "user"),
        (role_claim, role, "role"),
    ):
        if value is None:
            continue
        if claim_at(meant, claim) is None:
            put_claim(meant, claim, value)
        elif str(claim_at(meant, claim)) != value:
            raise ExplainError("claims", f"The claim {claim!r} says another {field} than is given.")
    if claim_at(meant, role_claim) is None:
        named = any(claim_at(meant, name) for name in settings.user_id_claims)
        put_claim(meant, role_claim, AUTHENTICATED if named else ANON)
    try:
        return _with_words(Subject.from_claims(meant))
    except tokens.TokenError as error:
        raise ExplainError(
            "claims", f"A token with these claims is refused: {error.reason}."
        ) from None


def _anybody() -> Asker:
    return Asker(Subject.anonymous(), AnonymousUser(), "an anonymous visitor")


def _plain(subject: Subject) -> Asker:
    if subject == Subject.anonymous():
        return _anybody()
    if subject == Subject.service():
        return Asker(subject, None, "the service role")
    return _with_words(subject)


def _name_of(user: Any) -> str:
    return f"{user.get_username()} (user {user.pk})"


def _with_words(subject: Subject) -> Asker:
    user = subject.user
    if user is not None:
        words = f"{_name_of(user)} with a token of role {subject.role}"
    elif subject.user_id is not None:
        words = f"a subject without a Django user, with a token of role {subject.role}"
    else:
        words = f"a token of role {subject.role}"
    return Asker(subject, user, words)
