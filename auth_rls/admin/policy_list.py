"""The list of policies in the admin: stored ones and those declared in code, in one order.

Owns what a row of the list is, the filters, and the words about a policy. A policy declared in code
has no link and no checkbox.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import InvalidPage
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from auth_rls.models import Policy
from auth_rls.policy.database_check import problem_of
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import Definition, PolicyProblem, target, understand
from auth_rls.predicates.describe import describe

_DECLARED = "declared_definition"


def in_code(policy: Policy) -> bool:
    """Whether a row of the list is a policy declared in code."""
    return _DECLARED in vars(policy)


def definition_of(policy: Policy) -> Definition:
    """The definition of a row of the list."""
    return vars(policy)[_DECLARED] if in_code(policy) else policy.definition()


def _row(definition: Definition) -> Policy:
    """A policy declared in code as a row. It is never saved."""
    row = Policy(
        name=definition.name,
        audience=definition.audience,
        mode=definition.mode,
        using=definition.using,
        with_check=definition.with_check,
    )
    vars(row)[_DECLARED] = definition
    return row


class SourceFilter(admin.SimpleListFilter):
    """Stored policies, or those declared in code."""

    title = _("place")
    parameter_name = "place"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("database", _("Database")), ("code", _("Code"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.none() if self.value() == "code" else queryset


class ModelFilter(admin.SimpleListFilter):
    """The model whose rows a policy is about."""

    title = _("model")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        path = "permission__content_type"
        stored = Policy.objects.order_by().values_list(f"{path}__app_label", f"{path}__model")
        names = {f"{app}.{model}" for app, model in stored.distinct()}
        names |= {name for each in declared_policies() if (name := _model_of(each))}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        app, _dot, model = str(self.value()).partition(".")
        return queryset.filter(
            permission__content_type__app_label=app, permission__content_type__model=model
        )


def _model_of(definition: Definition) -> str:
    """The model's name as a content type has it; empty if it is not installed."""
    try:
        return target(definition)[0]._meta.label_lower
    except PolicyProblem:
        return ""


class PolicyChangeList(ChangeList):
    """Lists the stored policies that fit the filters with the declared ones that do."""

    # Parameters of the page that choose no policies.
    _OTHERS = frozenset({"o", "q", "all", "_popup", "_to_field", "_facets"})

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        declared = [_row(each) for each in declared_policies() if self._fits(each)]
        if not declared:
            return
        rows = self._sorted([*self.queryset, *declared])
        paginator = self.model_admin.get_paginator(request, rows, self.list_per_page)
        self.paginator = paginator
        self.result_count = len(rows)
        if self.full_result_count is not None:
            self.full_result_count += len(declared_policies())
        self.can_show_all = len(rows) <= self.list_max_show_all
        self.multi_page = len(rows) > self.list_per_page
        if (self.show_all and self.can_show_all) or not self.multi_page:
            self.result_list = rows
            return
        try:
            self.result_list = paginator.page(self.page_num).object_list
        except InvalidPage as error:
            raise IncorrectLookupParameters from error

    def url_for_result(self, result: Any) -> str:
        if in_code(result):
            raise NoReverseMatch  # The list then shows the name without a link.
        return super().url_for_result(result)

    def _fits(self, definition: Definition) -> bool:
        """Whether a declared policy passes the filters and the search. One that a parameter of
        another kind is about does not."""
        known = {
            "enabled__exact": "1",
            "mode__exact": definition.mode,
            "audience__exact": definition.audience,
            "model": _model_of(definition),
            "place": "code",
        }
        for name, value in self.params.items():
            if name not in self._OTHERS and value != known.get(name):
                return False
        text = f"{definition.name} {definition.permission}".lower()
        return all(word in text for word in self.query.lower().split())

    def _sorted(self, rows: list[Policy]) -> list[Policy]:
        # By one column after the other, the last one first: Python's order is stable.
        for name in reversed(self.get_ordering(self.request, self.root_queryset)):
            key = _KEYS.get(str(name).lstrip("-"))
            if key is not None:
                rows.sort(key=key, reverse=str(name).startswith("-"))
        return rows

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self.request = request
        super().__init__(request, *args, **kwargs)


# By what the list may be ordered by, the same of a row in memory.
_KEYS: dict[str, Any] = {
    "name": lambda row: row.name.lower(),
    "audience": lambda row: row.audience,
    "permission__codename": lambda row: definition_of(row).permission.partition(".")[2],
    "permission__content_type__app_label": lambda row: definition_of(row).permission,
}


def words(definition: Definition) -> SafeString:
    """The predicates in plain English, or their problem."""
    try:
        understood = understand(definition)
    except PolicyProblem as problem:
        return format_html(
            '<span class="auth-rls-words auth-rls-broken">{}: {}</span>',
            problem.field,
            problem.message,
        )
    rule = understood.rule
    if understood.action == "add":
        text = _("new rows: %s") % describe(rule.predicate(new_row=True))
    elif rule.with_check is not None:
        text = _("%(using)s; new rows: %(check)s") % {
            "using": describe(rule.using),
            "check": describe(rule.with_check),
        }
    else:
        text = describe(rule.using)
    return format_html('<span class="auth-rls-words">{}</span>', text)


def state(definition: Definition, *, enabled: bool) -> SafeString:
    """Whether the policy counts: ok, off or broken, with a problem that only the database has."""
    problem = problem_of(definition)
    if problem is not None:
        kind, text = "broken", _("broken")
    else:
        kind, text = ("ok", _("ok")) if enabled else ("off", _("off"))
    return format_html(
        '<span class="auth-rls-state auth-rls-{}">{}</span>{}',
        kind,
        text,
        # `words` shows the problems that are found without the database.
        format_html('<div class="auth-rls-broken">{}</div>', problem.message)
        if problem is not None and _is_understood(definition)
        else "",
    )


def _is_understood(definition: Definition) -> bool:
    try:
        understand(definition)
    except PolicyProblem:
        return False
    return True
