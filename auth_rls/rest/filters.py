"""Filter backends: lists contain the rows that a subject may have, and ordering and search disclose
no more.

Owns which columns each parameter may use. Any other column is treated as an unknown one: ignored in
an ordering, without a match in a search.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from django.db import models
from django.db.models import BooleanField, Case, ExpressionWrapper, Q, When
from django.db.models.constants import LOOKUP_SEP
from rest_framework.filters import BaseFilterBackend, OrderingFilter, SearchFilter
from rest_framework.permissions import AND, SAFE_METHODS

from auth_rls.access.authority import bound_predicate
from auth_rls.access.querysets import permitted
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.rest.permissions import PolicyPermission
from auth_rls.rest.shown_columns import Target, resolve, shown_columns, shown_names
from auth_rls.rest.view_info import is_detail, serializer_of
from auth_rls.sql.columns import concrete
from auth_rls.sql.compile import condition
from auth_rls.sql.primary import at_primary
from auth_rls.subjects.resolve import of_request

# What Django calls the lookup of a `$` in `search_fields`.
_PATTERN = "regex"


class PolicyFilterBackend(BaseFilterBackend):
    """The rows that the request's subject may view. For a request that writes, only those it may
    change or delete; in detail routes with `PolicyPermission` the visible rows, so that an object
    that may be viewed and not written to is refused with 403 instead of 404."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        subject = of_request(request)
        if subject is None:
            return queryset.none()
        snapshot = PolicySnapshot.load()
        rows = permitted(queryset, subject, "view", snapshot=snapshot)
        if request.method in SAFE_METHODS:
            return rows
        if is_detail(view):
            if any(map(_is_policy, view.get_permissions())):
                return rows
        elif request.method == "POST":
            return rows
        action = "delete" if request.method == "DELETE" else "change"
        return permitted(rows, subject, action, snapshot=snapshot)


def _is_policy(permission: Any) -> bool:
    """Whether `PolicyPermission` is always applied: alone, or as a part of an `&`."""
    if isinstance(permission, AND):
        return _is_policy(permission.op1) or _is_policy(permission.op2)
    return isinstance(permission, PolicyPermission)


class PolicyOrderingFilter(OrderingFilter):
    """`?ordering=` by those columns of the model itself that the view's serializer shows, whatever
    `ordering_fields` says. A foreign key orders by its value, because an order by the row it
    points to would disclose rows that may be hidden."""

    def get_valid_fields(self, queryset: Any, view: Any, context: Any = None) -> Any:
        known = self._known(queryset, view)
        given = super().get_valid_fields(queryset, view, context)
        return [(name, label) for name, label in given if name in known]

    def remove_invalid_fields(
        self, queryset: Any, fields: list[str], view: Any, request: Any
    ) -> list[str]:
        known = self._known(queryset, view)
        terms = super().remove_invalid_fields(queryset, fields, view, request)
        return [("-" if t[:1] == "-" else "") + known[t.removeprefix("-")] for t in terms]

    def _known(self, queryset: Any, view: Any) -> dict[str, str]:
        """The names that may be ordered by, each with the name Django takes for it."""
        serializer = serializer_of(view)
        shown = shown_columns(queryset.model, serializer)
        known = {name: name for name in shown_names(serializer) & set(queryset.query.annotations)}
        for field in queryset.model._meta.concrete_fields:
            if (field.attname,) in shown:
                known[field.name] = known[field.attname] = field.attname
                if field.primary_key:
                    known["pk"] = field.attname
        return known


class PolicySearchFilter(SearchFilter):
    """`?search=` in those of `search_fields` that the view's serializer shows. Across a relation
    only the related rows that the subject may view are searched. A client's regular expression
    (`$` in `search_fields`) is put to no other row, whatever order a database would choose: the
    time that it takes tells of the text."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        names = self.get_search_fields(view, request)
        terms = self.get_search_terms(request)
        if not names or not terms:
            return queryset
        subject = of_request(request)
        targets = [t for name in names if (t := self._target(str(name), queryset, view))]
        if subject is None or not targets:
            return queryset.none()
        # The related rows are subqueries, which have to be in the database of the rows.
        queryset = at_primary(queryset)
        snapshot = PolicySnapshot.load()
        see = functools.partial(permitted, subject=subject, action="view", snapshot=snapshot)

        def matches_of(lookup: str, target: Target, term: str) -> Q:
            found = Q(**{lookup: term})
            if lookup.endswith(_PATTERN):
                searched = concrete(target.models[-1] if target.models else queryset.model)
                policy = bound_predicate(subject, searched, "view", snapshot=snapshot)
                found = _behind(condition(policy, searched), found)
            return _condition(queryset, found, target, see)

        for term in terms:
            matches = (matches_of(lookup, target, term) for lookup, target in targets)
            queryset = queryset.filter(functools.reduce(operator.or_, matches))
        return queryset

    def _target(self, name: str, queryset: Any, view: Any) -> tuple[str, Target] | None:
        """The lookup on the last table and the path to it; None for a column not shown."""
        prefix = name[0] if name[0] in self.lookup_prefixes else ""
        path = tuple(name.removeprefix(prefix).split(LOOKUP_SEP))
        serializer = serializer_of(view)
        if path[0] in queryset.query.annotations:
            if path[0] not in shown_names(serializer):
                return None
            return self.construct_search(name, queryset), Target((), path[0])
        target = resolve(queryset.model, path)
        if target is None or target.path not in shown_columns(queryset.model, serializer):
            return None
        last = target.models[-1] if target.models else queryset.model
        own = prefix + LOOKUP_SEP.join((target.column, *target.rest))
        return self.construct_search(own, models.QuerySet(last)), target


def _behind(policy: Q, found: Q) -> Q:
    """The condition `found`, judged where the policy is true alone. CASE keeps this order."""
    judged = ExpressionWrapper(found, output_field=BooleanField())
    return Q(Case(When(policy, then=judged), default=False, output_field=BooleanField()))


def _condition(queryset: Any, found: Q, target: Target, see: Any) -> Q:
    """The rows of the queryset themselves, or those with a related row, for which `found` holds."""
    if not target.relations:
        return found
    # From the last table back: visible rows that match, then visible rows that point to them.
    for model, relation in zip(reversed(target.models), reversed(target.relations), strict=True):
        rows = see(models.QuerySet(model, using=queryset.db).filter(found))
        found = Q(**{f"{relation}__in": rows})
    # In a subquery, so that a row with two matches comes once.
    matching: models.QuerySet[Any] = models.QuerySet(queryset.model, using=queryset.db).filter(
        found
    )
    return Q(pk__in=matching.values("pk"))
