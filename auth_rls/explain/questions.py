"""Explanations of stored rows: a subject, a permission and a row, with the answer of every door.

Owns reading these from the database; `clauses` explains the verdict, `doors` tries the doors. It
changes nothing. Call it in a database thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models

from auth_rls import conf
from auth_rls.access import audit_log, authority
from auth_rls.access.snapshot import PolicySnapshot, permission_name
from auth_rls.explain.clauses import (
    Candidate,
    Explanation,
    explain,
    together,
    unasked,
    withheld,
)
from auth_rls.explain.doors import DoorVerdict, Question, ask_all
from auth_rls.models import Policy
from auth_rls.policy.database_check import problem_of
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import (
    ACTIONS,
    Definition,
    PolicyProblem,
    denying,
    target,
    understand,
)
from auth_rls.predicates.bind import MISSING
from auth_rls.sql.inheritance import ancestors
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import row_of
from auth_rls.subjects import tokens
from auth_rls.subjects.claims import claim_at, put_claim
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import ANON, AUTHENTICATED, SERVICE_ROLE, Subject, user_id_of


class ExplainError(ValueError):
    """A question that cannot be answered. `field` is the part at fault: user, claims, role,
    token, permission, pk or topic; the text says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Asker:
    """The subject of a question, and its description in `words`."""

    subject: Subject
    user: Any
    words: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question. `asker` and `row` are descriptions."""

    question: Question
    asker: str
    permission: str
    row: str
    explanation: Explanation
    doors: tuple[DoorVerdict, ...]

    @property
    def model(self) -> str:
        """The label of the row's model."""
        return self.question.model._meta.label

    @property
    def pk(self) -> str:
        """The row's primary key as text, as `--pk` takes it."""
        return key_text(self.question.instance.pk)

    @property
    def agree(self) -> bool:
        """Whether the answer of every door that was tried is the policies' verdict."""
        asked = [door.allowed for door in self.doors if door.allowed is not None]
        return all(allowed is self.explanation.allowed for allowed in asked)

    @property
    def doubt(self) -> str:
        """A message for people if the doors do not agree, else ""."""
        if self.agree:
            return ""
        if any(door.allowed is False and door.note for door in self.doors):
            return "A door fails, and then it shows no row to anybody."
        return "The doors do not agree, and they must: please report this."

    @property
    def allowed(self) -> bool:
        """Whether the policies and every door that was tried allow it."""
        return self.explanation.allowed and self.agree


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


def question(who: Asker, permission: str, pk: str) -> Question:
    """The question about the row with this primary key or, for a permission on topics, about the
    topic of this name. Raises ExplainError."""
    model, action = action_on(permission)
    instance = stored_row(model, pk) if action in ACTIONS else _name(model, pk)
    return Question(who.subject, who.user, action, instance, who.refused)


def answer(who: Asker, asked: Question) -> Answer:
    """The policies' verdict with its reasons, and the answer of every door."""
    permission = permission_name(asked.model, asked.action)
    # An explanation is not an access by its subject.
    with audit_log.quiet():
        return Answer(
            question=asked,
            asker=who.words,
            permission=permission,
            row=str(asked.instance),
            explanation=_explanation(asked, permission),
            doors=ask_all(asked),
        )


def action_on(permission: str) -> tuple[type[models.Model], str]:
    """The model and the action of the permission "app.codename". Raises ExplainError."""
    if "." not in permission:
        raise ExplainError(
            "permission", f'A permission is written "app.codename", not {permission!r}.'
        )
    try:
        return target(Definition(name="", permission=permission))
    except PolicyProblem as problem:
        raise ExplainError("permission", problem.message) from None


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


def outline(model: type[models.Model], action: str) -> Explanation:
    """The policies on the action, those of the model's ancestors too, as they are written: without
    values, and with verdicts that must be ignored. Reads no row but the policies."""
    bare = [
        explain(
            permission_name(each, action),
            candidates(each, action),
            {},
            holds_permission=True,
            authenticated=True,
            value_of=lambda ref: MISSING,
            set_of=lambda select: (),
            new_row=action == "add",
        )
        for each in (model, *ancestors(model))
    ]
    return withheld(together(bare), row=True, subject=True)


def has_row(rows: models.QuerySet[Any], pk: str) -> bool:
    """Whether a row with this primary key, as people write it, is among `rows`."""
    try:
        return rows.filter(pk=parsed_key(rows.model, pk)).exists()
    except (ValueError, TypeError, OverflowError, ValidationError):
        return False


def candidates(model: type[models.Model], action: str) -> list[Candidate]:
    """Every policy on this action, enabled or not, in the order in which they are applied."""
    stored = Policy.objects.using(primary(Policy)).order_by("pk")
    stored = stored.select_related("permission__content_type")
    written = [(policy.definition(), policy.enabled) for policy in stored]
    written += [(definition, True) for definition in declared_policies()]
    found: list[Candidate] = []
    for definition, enabled in written:
        try:
            if target(definition) != (model, action):
                continue
        except PolicyProblem:
            continue  # The policy's model does not exist.
        problem = problem_of(definition)
        if problem is None:
            found.append(Candidate(understand(definition).rule, definition.source, enabled))
        else:
            text = f"{problem.field}: {problem.message}"
            found.append(Candidate(denying(definition).rule, definition.source, enabled, text))
    return found


def _explanation(asked: Question, permission: str) -> Explanation:
    model, action, subject = asked.model, asked.action, asked.subject
    policies = candidates(model, action)
    if asked.refused:
        return unasked(permission, policies, allowed=False, because=asked.refused)
    if subject.bypasses_rls:
        who = "service role" if subject.role == SERVICE_ROLE else "active superuser"
        because = f"The {who} bypasses row-level security, so no policy is asked."
        return unasked(permission, policies, allowed=True, because=because)
    snapshot = PolicySnapshot.load()
    found = [
        explain(
            permission_name(each, action),
            policies if each is model else candidates(each, action),
            row_of(asked.instance, each, stored=action != "add"),
            holds_permission=snapshot.holds(subject, each, action),
            authenticated=subject.role != ANON,
            value_of=authority.values_of(subject),
            set_of=authority.reader(snapshot),
            new_row=action == "add",
        )
        for each in (model, *ancestors(model))
    ]
    return together(found)


def stored_row(model: type[models.Model], pk: str) -> models.Model:
    """The row with this primary key, as people write it. Raises ExplainError."""
    # No manager: policies also decide about rows that a manager hides.
    rows: models.QuerySet[models.Model] = models.QuerySet(model, using=primary(model))
    try:
        return rows.get(pk=parsed_key(model, pk))
    except (ObjectDoesNotExist, ValueError, TypeError, OverflowError, ValidationError):
        label = model._meta.label
        fields = [field.name for field in model._meta.pk_fields]
        how = "" if len(fields) == 1 else f" Its key is a JSON list of {', '.join(fields)}."
        raise ExplainError(
            "pk", f"There is no row of {label} with the primary key {pk!r}.{how}"
        ) from None


def key_text(key: Any) -> str:
    """A primary key as text; a composite one as a JSON list, as the log has it."""
    if not isinstance(key, tuple):
        return str(key)
    plain = [part if isinstance(part, int | str) else str(part) for part in key]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def parsed_key(model: type[models.Model], text: str) -> Any:
    """The primary key written in `text`, as a query takes it. Raises ValueError."""
    number = len(model._meta.pk_fields)
    if number == 1:
        return text
    parts = json.loads(text)
    if not isinstance(parts, list) or len(parts) != number:
        raise ValueError("not as many values as the key has columns")
    return tuple(parts)


def _name(model: type[models.Model], name: str) -> models.Model:
    """The row of a model without a table, which consists of its key."""
    instance = model(pk=name)
    try:
        instance.clean_fields()
    except ValidationError as error:
        raise ExplainError("topic", " ".join(error.messages)) from None
    return instance


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


_INACTIVE = "The user is inactive, and every door refuses."


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
