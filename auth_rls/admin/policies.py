"""The policies in the Django admin.

Owns how policies are shown and edited.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from auth_rls.admin.explain_pages import ExplainPages
from auth_rls.admin.forms import PolicyForm, PredicateField, PredicateTextarea
from auth_rls.admin.reader import Reader
from auth_rls.models import Policy
from auth_rls.policy.database_check import problem_of
from auth_rls.policy.declared import declared_policies
from auth_rls.policy.definition import (
    ACTIONS,
    Definition,
    PolicyProblem,
    own_actions,
    target,
    understand,
)
from auth_rls.predicates.describe import describe
from auth_rls.predicates.operators import policy_operators
from auth_rls.sql.columns import UnsupportedColumn, columns_of

_EXAMPLES = (
    ('{"owner": "$user.id"}', _("rows whose owner is the user")),
    ('{"is_public": true, "score__gte": 10}', _("both at once")),
    ('{"any": [{"is_public": true}, {"owner": "$user.id"}]}', _("one or the other")),
    ('{"not": {"score__in": [1, 2]}}', _("the rest; a NULL score is neither")),
    ('{"tenant": "$claims.app_metadata.tenant"}', _("as the token says")),
    (
        '{"team__in": {"select": "team", "from": "teams.Member", "where": {"user": "$user.id"}}}',
        _("rows of teams the user is a member of"),
    ),
    ("true", _("every row")),
)


class PermissionSelect(AutocompleteSelect):
    """Searches permissions through a view of the policy admin, so that the site needs no admin
    for permissions."""

    def get_url(self) -> str:
        return reverse(f"{self.admin_site.name}:auth_rls_policy_permissions")


@admin.register(Policy)
class PolicyAdmin(ExplainPages, admin.ModelAdmin):
    form = PolicyForm
    # The state comes early: on narrow screens the columns on the right are out of sight.
    list_display = ("name", "state", "permission_code", "applies", "words")
    list_filter = (
        "enabled",
        "mode",
        "audience",
        ("permission__content_type", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("permission__content_type",)
    search_fields = ("name", "permission__codename", "permission__content_type__app_label")
    actions = ("enable", "disable")
    save_on_top = True
    readonly_fields = ("words", "state", "columns")
    formfield_overrides = {
        models.JSONField: {"form_class": PredicateField, "widget": PredicateTextarea},
    }

    class Media:
        css = {"all": ("auth_rls/policies.css",)}
        js = ("auth_rls/test_as_user.js",)

    def get_fieldsets(self, request: HttpRequest, obj: Policy | None = None) -> Any:
        rows: list[str] = ["using", "with_check"]
        fieldsets = [
            (None, {"fields": ("name", "permission", "audience", "mode", "enabled")}),
            (_("Rows"), {"fields": rows, "description": _grammar(unfolded=obj is None)}),
        ]
        if obj is not None:
            rows.append("columns")
            fieldsets.insert(1, (_("What it says"), {"fields": ("words", "state")}))
        return fieldsets

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest | None, **kwargs: Any
    ) -> Any:
        if db_field.name == "permission":
            kwargs["widget"] = PermissionSelect(db_field, self.admin_site)
            kwargs["queryset"] = Permission.objects.select_related("content_type")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        form = super().get_form(request, *args, **kwargs)
        setattr(form, "reader", Reader(request, self.admin_site))  # noqa: B010  (of the class)
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Policy | None = None) -> bool:
        """Also needs a right on the model: without a restrictive policy more rows are shown."""
        if not super().has_delete_permission(request, obj):
            return False
        return obj is None or Reader(request, self.admin_site).may_decide(obj)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.permissions_view)
        return [
            path("permissions/", view, name="auth_rls_policy_permissions"),
            *self.explain_urls(),
            *super().get_urls(),
        ]

    def permissions_view(self, request: HttpRequest) -> JsonResponse:
        """For the autocomplete field, the permissions on rows that match every word."""
        if not (self.has_view_permission(request) or self.has_add_permission(request)):
            raise PermissionDenied
        found = Permission.objects.select_related("content_type")
        found = found.filter(
            Q(codename__regex=rf"^({'|'.join(ACTIONS)})_") | Q(codename__in=own_actions())
        )
        # Permissions are written "app.codename" elsewhere.
        for word in request.GET.get("term", "").replace(".", " ").replace("|", " ").split():
            found = found.filter(
                Q(codename__icontains=word)
                | Q(name__icontains=word)
                | Q(content_type__app_label__icontains=word)
            )
        paginator = self.get_paginator(request, found, 20)
        page = paginator.get_page(request.GET.get("page"))
        return JsonResponse(
            {
                "results": [{"id": str(item.pk), "text": str(item)} for item in page],
                "pagination": {"more": page.has_next()},
            }
        )

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        context |= self.test_context(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        declared = [
            {
                "name": definition.name,
                "permission": definition.permission,
                "audience": Policy.Audience(definition.audience).label
                if definition.audience in Policy.Audience.values
                else definition.audience,
                "mode": definition.mode,
                "words": _words(definition),
                "source": definition.source,
                "state": _state(definition, enabled=True),
            }
            for definition in declared_policies()
        ]
        return super().changelist_view(request, {**(extra_context or {}), "declared": declared})

    @admin.display(description=_("permission"), ordering="permission__codename")
    def permission_code(self, policy: Policy) -> str:
        return policy.definition().permission

    @admin.display(description=_("applies"), ordering="audience")
    def applies(self, policy: Policy) -> str:
        return f"{policy.get_mode_display()}, for {policy.get_audience_display()}"

    @admin.display(description=_("what it does"))
    def words(self, policy: Policy) -> SafeString:
        return _words(policy.definition())

    @admin.display(description=_("state"))
    def state(self, policy: Policy) -> SafeString:
        return _state(policy.definition(), enabled=policy.enabled)

    @admin.display(description=_("columns"))
    def columns(self, policy: Policy) -> SafeString | str:
        """The columns that predicates may name, with the operators of each."""
        try:
            model, _action = target(policy.definition())
            columns = columns_of(model).values()
        except (PolicyProblem, UnsupportedColumn) as error:
            return str(error)
        listed = format_html_join(
            "",
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            (
                (" or ".join(c.names), c.kind, ", ".join(sorted(policy_operators(c.kind))))
                for c in columns
            ),
        )
        return format_html(
            '<details class="auth-rls-help"><summary>{}</summary><table>{}</table></details>',
            _("Columns of %(model)s and their operators") % {"model": model._meta.label},
            listed,
        )

    @admin.action(description=_("Enable selected policies"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Policy]) -> None:
        self._switch(request, queryset, True)

    @admin.action(description=_("Disable selected policies"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Policy]) -> None:
        self._switch(request, queryset, False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Policy], enabled: bool) -> None:
        reader = Reader(request, self.admin_site)
        switched = list(
            queryset.exclude(enabled=enabled).select_related("permission__content_type")
        )
        refused = [policy.name for policy in switched if not reader.may_decide(policy)]
        if refused:
            text = _("Nothing was changed: you may not change policies on the rows of %(names)s.")
            self.message_user(request, text % {"names": ", ".join(refused)}, messages.ERROR)
            return
        broken = [policy.name for policy in switched if enabled and policy.problem() is not None]
        if broken:
            text = _("Nothing was changed: %(names)s cannot be used and would deny.")
            self.message_user(request, text % {"names": ", ".join(broken)}, messages.ERROR)
            return
        for policy in switched:
            policy.enabled = enabled
            policy.save(update_fields=["enabled"])
            self.log_change(request, policy, [{"changed": {"fields": [str(_("Enabled"))]}}])
        count = len(switched)
        text = (
            ngettext("%d policy enabled.", "%d policies enabled.", count)
            if enabled
            else ngettext("%d policy disabled.", "%d policies disabled.", count)
        )
        self.message_user(request, text % count, messages.SUCCESS)


def _words(definition: Definition) -> SafeString:
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


def _state(definition: Definition, *, enabled: bool) -> SafeString:
    problem = problem_of(definition)
    if problem is not None:
        kind, text = "broken", _("broken")
    else:
        kind, text = ("ok", _("ok")) if enabled else ("off", _("off"))
    return format_html(
        '<span class="auth-rls-state auth-rls-{}">{}</span>{}',
        kind,
        text,
        # `_words` shows the problems that are found without the database.
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


def _grammar(*, unfolded: bool) -> SafeString:
    examples = format_html_join(
        "", "<tr><td><code>{}</code></td><td>{}</td></tr>", ((a, b) for a, b in _EXAMPLES)
    )
    return format_html(
        '<div class="auth-rls-help">{}<details{}><summary>{}</summary>'
        "<table>{}</table>{}</details></div>",
        _("JSON on the columns of the model itself. Several keys must all hold."),
        SafeString(" open") if unfolded else "",
        _("Examples"),
        examples,
        _(
            "Values may be $user.id, $user.<field>, $claims.<path> or $role; a text that begins "
            "with $ is written $$. A comparison with NULL is unknown, and unknown is not true."
        ),
    )
