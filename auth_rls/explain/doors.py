"""The doors through which a row can be reached, each asked for real.

Owns the list of doors and how one row is asked for at each, as code of an application would ask.
An app that gives rows out by another way registers its door. Nothing here knows a policy: that
the answers are one is what asking shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from django.db import DatabaseError, models, router
from django.utils.module_loading import import_string

from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import permission_name
from auth_rls.policy.database_check import apart, reason
from auth_rls.policy.definition import ACTIONS
from auth_rls.subjects.subject import Subject


@dataclass(frozen=True, slots=True)
class Question:
    """May this subject do this to this row? `user` is the Django user behind the subject, or
    None where it is no Django user who asks; it may be inactive, and then the subject is that of
    nobody. `refused` says why the subject would not get as far as the policies."""

    subject: Subject
    user: Any
    action: str
    instance: models.Model
    refused: str = ""

    @property
    def model(self) -> type[models.Model]:
        return type(self.instance)

    @property
    def rows(self) -> models.QuerySet[Any]:
        """The one row, by no manager: one that hides rows would hide the answer."""
        alias = router.db_for_read(self.model, instance=self.instance)
        return models.QuerySet(self.model, using=alias).filter(pk=self.instance.pk)


@dataclass(frozen=True, slots=True)
class DoorVerdict:
    """What a door answered. `allowed` None: it was not asked, and `note` says why. With False a
    note says how it failed, for then nobody gets through either."""

    door: str
    allowed: bool | None
    note: str = ""


Door = Callable[[Question], "bool | str"]
"""Answers yes or no, or says why the question is none for this door."""

_ORDER = ("stream", "queryset", "has_perm", "REST")
_doors: dict[str, Door] = {}


def register(name: str, door: Door) -> None:
    """Adds a door, or replaces the one of that name."""
    _doors[name] = door


def ask_all(question: Question) -> tuple[DoorVerdict, ...]:
    """Every door's own answer."""
    names = sorted(_doors, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))
    return tuple(_ask(name, question) for name in names)


def _ask(name: str, question: Question) -> DoorVerdict:
    try:
        with apart(question.rows.db):
            answer = _doors[name](question)
    except DatabaseError as error:
        return DoorVerdict(name, False, f"it fails: {reason(error)}")
    if isinstance(answer, str):
        return DoorVerdict(name, None, answer)
    return DoorVerdict(name, answer)


def _queryset(question: Question) -> bool | str:
    if question.action == "add":
        return "an add concerns a row that no queryset has yet"
    if question.action not in ACTIONS:
        return "it has no rows in a table"
    asker = question.user if question.refused else question.subject
    return permitted(question.rows, asker, question.action).exists()


def _has_perm(question: Question) -> bool | str:
    if question.user is None:
        return "it is asked of Django users only"
    if not question.refused and Subject.from_user(question.user) != question.subject:
        return "it knows the user and no other claims or role"
    permission = permission_name(question.model, question.action)
    return bool(question.user.has_perm(permission, question.instance))


def _rest(question: Question) -> bool | str:
    # By name: REST framework is optional, and only that package may know it.
    if find_spec("rest_framework") is None:
        return "Django REST framework is not installed"
    ask: Door = import_string("auth_rls.rest.door.ask")
    return ask(question)


register("queryset", _queryset)
register("has_perm", _has_perm)
register("REST", _rest)
