"""The queryset door: a queryset narrowed to the rows that policies let a subject have.

Owns no rule: the policies that apply become one condition, selects become subqueries, and the
database decides. So the rows cost one query, and nothing is read before it but the policies and
who holds what.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

from auth_rls.authority import bound_predicate
from auth_rls.compile import condition
from auth_rls.definition import ACTIONS, concrete
from auth_rls.predicate import FALSE, TRUE
from auth_rls.snapshot import PolicySnapshot
from auth_rls.subject import Subject

_M = TypeVar("_M", bound=Model)


def visible(
    queryset: QuerySet[_M], subject: Any, *, snapshot: PolicySnapshot | None = None
) -> QuerySet[_M]:
    """The rows of `queryset` that `subject` may see. See `permitted`."""
    return permitted(queryset, subject, "view", snapshot=snapshot)


def permitted(
    queryset: QuerySet[_M],
    subject: Any,
    action: str,
    *,
    snapshot: PolicySnapshot | None = None,
) -> QuerySet[_M]:
    """The rows of `queryset` to which `subject` may do `action`: view, change or delete.

    `subject` is a `Subject` or a Django user; an inactive user gets nothing. Like any filter it
    must come before slicing. Raises ValueError for another action; adding concerns a row that
    is not there yet, so ask `user.has_perm("app.add_model", instance)`.
    """
    if action not in ACTIONS or action == "add":
        raise ValueError(f"action must be view, change or delete, not {action!r}")
    if not isinstance(subject, Subject):
        if not subject.is_anonymous and not subject.is_active:
            return queryset.none()
        subject = Subject.from_user(subject)
    model = concrete(queryset.model)
    predicate = bound_predicate(subject, model, action, snapshot=snapshot)
    if predicate == TRUE:
        return queryset.all()
    if predicate == FALSE:
        return queryset.none()
    return queryset.filter(condition(predicate, model))
