"""Explanations of stored rows: a subject, a permission and a row, with the answer of every door.

Owns reading these from the database; `clauses` explains the verdict, `doors` tries the doors. It
changes nothing. Call it in a database thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models

from auth_rls.access import audit_log, authority
from auth_rls.access.snapshot import PolicySnapshot, permission_name
from auth_rls.explain.askers import Asker
from auth_rls.explain.clauses import (
    Candidate,
    Explanation,
    explain,
    together,
    unasked,
    withheld,
)
from auth_rls.explain.doors import DoorVerdict, Question, ask_all
from auth_rls.explain.errors import ExplainError
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
from auth_rls.subjects.subject import ANON, SERVICE_ROLE


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
