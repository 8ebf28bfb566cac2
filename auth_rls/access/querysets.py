"""The queryset door: a queryset narrowed to the rows that policies show a subject.

Owns no rule: the policies that apply become one condition, selects become subqueries, and the
database decides. The rows take one query; before it, only policies and permissions are read.
"""

from __future__ import annotations

from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from auth_rls.access.authority import bound_predicate
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.policy.definition import ACTIONS
from auth_rls.predicates.predicate import FALSE, TRUE
from auth_rls.sql.columns import concrete
from auth_rls.sql.compile import condition
from auth_rls.sql.inheritance import descendants
from auth_rls.sql.primary import at_primary
from auth_rls.subjects.resolve import subject_of

_Q = TypeVar("_Q", bound=QuerySet[Any])


def visible(queryset: _Q, subject: Any, *, snapshot: PolicySnapshot | None = None) -> _Q:
    """The rows of `queryset` that `subject` may see. See `permitted`."""
    return permitted(queryset, subject, "view", snapshot=snapshot)


def permitted(
    queryset: _Q,
    subject: Any,
    action: str,
    *,
    snapshot: PolicySnapshot | None = None,
) -> _Q:
    """The rows of `queryset` to which `subject` may do `action`: view, change or delete.

    `subject` is a `Subject`, a Django user or a request; an inactive user gets no row. Like any
    filter this must come before slicing. Raises ValueError for another action; an add concerns a
    row that does not exist yet, so call `check_add(instance, subject)`. Where a router reads from a
    replica, the rows are read from the primary, unless the queryset names a database by `using`.
    """
    if action not in ACTIONS or action == "add":
        raise ValueError(f"action must be view, change or delete, not {action!r}")
    asking = subject_of(subject)
    if asking is None:
        return queryset.none()
    queryset = at_primary(queryset)
    model = concrete(queryset.model)
    predicate = bound_predicate(asking, model, action, snapshot=snapshot)
    if predicate == FALSE:
        return queryset.none()
    rows = queryset.all() if predicate == TRUE else queryset.filter(condition(predicate, model))
    if not _gives_subclasses(queryset):
        return rows
    snapshot = snapshot or PolicySnapshot.load()
    for child in descendants(model):
        hidden: QuerySet[Any] = QuerySet(child, using=queryset.db)
        allowed = permitted(hidden, asking, action, snapshot=snapshot)
        hidden = hidden.exclude(pk__in=allowed.order_by().values("pk"))
        rows = rows.exclude(pk__in=hidden.order_by().values(model._meta.pk.attname))
    return rows


def _gives_subclasses(queryset: QuerySet[Any]) -> bool:
    """Whether rows come as instances of the children in multi-table inheritance, with their
    columns, as django-polymorphic and django-model-utils give them."""
    return hasattr(queryset, "non_polymorphic") or bool(getattr(queryset, "subclasses", None))


async def avisible(queryset: _Q, subject: Any) -> _Q:
    """`visible` for async callers: policies are read in a database thread. Iterate the result
    with `async for`."""
    return await apermitted(queryset, subject, "view")


async def apermitted(queryset: _Q, subject: Any, action: str) -> _Q:
    """`permitted` for async callers. See `avisible`."""
    narrowed: _Q = await sync_to_async(permitted, thread_sensitive=True)(queryset, subject, action)
    return narrowed
