"""The trial of a policy before it is saved: which rows a user would get under it.

Owns the trial: the edited policy replaces the stored one, beside all others in force, and the
queryset door returns the rows. It changes nothing. Call it in a database thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models

from auth_rls.access import audit_log
from auth_rls.access.authority import new_row_predicate
from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import PolicySnapshot, stored_definitions
from auth_rls.explain.askers import Asker
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import ACTIONS, Definition, target
from auth_rls.sql.compile import condition
from auth_rls.sql.primary import primary

MOST_COUNTED = 10_000
"""Rows beyond this are not counted, so that a large table does not make the page slow."""
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of rows. With `more` the real number is larger."""

    number: int
    more: bool

    def __str__(self) -> str:
        return f"more than {self.number:,}" if self.more else f"{self.number:,}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The first of a number of rows, by primary key."""

    counted: Counted
    rows: tuple[models.Model, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """The rows of a subject now and under the edited policy, of `all` that there are: those that
    only pass under it (`gained`), those that only pass now (`lost`), and those that do both ways
    (`kept`)."""

    model: type[models.Model]
    action: str
    all: Counted
    now: Counted
    then: Counted
    gained: Listed
    lost: Listed
    kept: Listed


def trial(
    who: Asker,
    edited: Definition,
    *,
    enabled: bool,
    replaces: str | None,
    among: models.QuerySet[Any] | None = None,
) -> Trial | None:
    """The rows under the edited policy, which replaces the stored one named `replaces`. Rows that
    are not in `among`, a queryset of the model, are left out and not counted.

    For an add, these are the stored rows that could be added as they are. None if the model has no
    table. Raises PolicyProblem if the permission belongs to no model.
    """
    model, action = target(edited)
    if action not in ACTIONS:
        return None
    others = [found for found in stored_definitions() if found.name != replaces]
    edits = [edited] if enabled else []
    with audit_log.quiet():
        edit = PolicySnapshot([*others, *declared_policies(), *edits])
        now = _rows(who, model, action, PolicySnapshot.load(), among)
        then = _rows(who, model, action, edit, among)
    return Trial(
        model=model,
        action=action,
        all=_counted(_among(model, among)),
        now=_counted(now),
        then=_counted(then),
        gained=_listed(then.exclude(pk__in=_keys(now))),
        lost=_listed(now.exclude(pk__in=_keys(then))),
        kept=_listed(then.filter(pk__in=_keys(now))),
    )


def _keys(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    return rows.order_by().values("pk")


def _listed(rows: models.QuerySet[Any]) -> Listed:
    return Listed(_counted(rows), tuple(rows.order_by("pk")[:MOST_SHOWN]))


def _among(model: type[models.Model], among: models.QuerySet[Any] | None) -> models.QuerySet[Any]:
    # No manager: policies also decide about rows that a manager hides.
    rows: models.QuerySet[Any] = models.QuerySet(model, using=primary(model))
    return rows if among is None else rows.filter(pk__in=_keys(among))


def _rows(
    who: Asker,
    model: type[models.Model],
    action: str,
    snapshot: PolicySnapshot,
    among: models.QuerySet[Any] | None,
) -> models.QuerySet[Any]:
    rows = _among(model, among)
    if action != "add":
        asker = who.user if who.refused else who.subject
        return permitted(rows, asker, action, snapshot=snapshot)
    if who.refused:
        return rows.none()
    predicate = new_row_predicate(who.subject, model, action, snapshot=snapshot)
    return rows.filter(condition(predicate, model))


def _counted(rows: models.QuerySet[Any]) -> Counted:
    number = rows.order_by()[: MOST_COUNTED + 1].count()
    return Counted(min(number, MOST_COUNTED), number > MOST_COUNTED)
