"""The doors through which a row can be reached, each tried as an application would use it.

Owns the list of doors and how each is tried with one row. An app that gives out rows in another way
registers its door. No answer of a door is derived from policies here, so that comparing the answers
with the explanation shows whether they agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.db import DatabaseError, models
from django.utils.module_loading import import_string

from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import permission_name
from auth_rls.policy.database_check import apart, reason
from auth_rls.policy.definition import ACTIONS
from auth_rls.sql.primary import primary
from auth_rls.subjects.subject import Subject


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a subject may do an action to a row. `user` is the Django user of the subject, None
    if it has none; for an inactive user the subject is the anonymous one. `refused` is why the
    subject is refused before any policy is evaluated, if it is."""

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
        """A queryset of the one row. It uses no manager, since a manager may hide rows."""
        alias = primary(self.model, self.instance)
        return models.QuerySet(self.model, using=alias).filter(pk=self.instance.pk)


@dataclass(frozen=True, slots=True)
class DoorVerdict:
    """The answer of a door. If `allowed` is None, the door was not tried, and `note` says why. If
    it is False, a note says how the door failed; a door that fails lets no row through."""

    door: str
    allowed: bool | None
    note: str = ""


Door = Callable[[Question], "bool | str"]
"""Answers True or False, or a text that says why the question does not concern this door."""

_ORDER = ("stream", "queryset", "has_perm", "REST")
DOORS: Final[dict[str, Door]] = {}
"""The doors by name. Filled by `register`."""


def register(name: str, door: Door) -> None:
    """Add a door, or replace the one with that name."""
    DOORS[name] = door


def ask_all(question: Question) -> tuple[DoorVerdict, ...]:
    """The answer of every door."""
    names = sorted(DOORS, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))
    return tuple(_ask(name, question) for name in names)


def _ask(name: str, question: Question) -> DoorVerdict:
    try:
        with apart(question.rows.db):
            answer = DOORS[name](question)
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
    if not hasattr(question.user, "has_perm"):
        return "the user model has no permissions"
    if not isinstance(question.user, PermissionsMixin | AnonymousUser):
        # As in the example of Django's documentation, which says yes to everything.
        return "the user model's own has_perm decides, which need not ask PolicyBackend"
    if not question.refused and Subject.from_user(question.user) != question.subject:
        return "it knows the user and no other claims or role"
    permission = permission_name(question.model, question.action)
    return bool(question.user.has_perm(permission, question.instance))


def _rest(question: Question) -> bool | str:
    # By name: REST framework is optional, and only auth_rls.rest may import it.
    if find_spec("rest_framework") is None:
        return "Django REST framework is not installed"
    ask: Door = import_string("auth_rls.rest.door.ask")
    return ask(question)


register("queryset", _queryset)
register("has_perm", _has_perm)
register("REST", _rest)
