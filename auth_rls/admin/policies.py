"""The policies in the Django admin.

Owns how policies are shown and edited.
"""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import Permission
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from auth_rls.admin import policy_list
from auth_rls.admin.explain_pages import ExplainPages
from auth_rls.admin.forms import PolicyForm, PredicateField, PredicateTextarea
from auth_rls.admin.pickers import PickInput, PickViews, columns_table
from auth_rls.admin.policy_list import (
    ModelFilter,
    PolicyChangeList,
    SourceFilter,
    definition_of,
    in_code,
)
from auth_rls.admin.reader import Reader
from auth_rls.documentation import page
from auth_rls.models import Policy
from auth_rls.policy.choices import beside_choices
from auth_rls.policy.definition import understand

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
class PolicyAdmin(ExplainPages, PickViews, admin.ModelAdmin):
    form = PolicyForm
    # The state comes early: on narrow screens the columns on the right are out of sight.
    list_display = ("named", "state", "words", "permission_code", "applies")
    list_display_links = ("named",)
    list_filter = ("enabled", "mode", "audience", SourceFilter, ModelFilter)
    list_select_related = ("permission__content_type",)
    search_fields = ("name", "permission__codename", "permission__content_type__app_label")
    search_help_text = _("A name, an app or a permission; several words must all fit.")
    # Policies declared in code would be missing in the counts.
    show_facets = admin.ShowFacets.NEVER
    actions = ("enable", "disable")
    save_on_top = True
    readonly_fields = ("words", "state", "columns")
    formfield_overrides = {
        models.JSONField: {"form_class": PredicateField, "widget": PredicateTextarea},
    }

    @property
    def media(self) -> Any:
        own = forms.Media(
            css={"all": ("auth_rls/policies.css",)},
            js=("admin/js/jquery.init.js", "auth_rls/columns.js", "auth_rls/test_as_user.js"),
        )
        return super().media + PickInput("").media + own

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PolicyChangeList

    def get_fieldsets(self, request: HttpRequest, obj: Policy | None = None) -> Any:
        rows = ("using", "with_check", "columns")
        fieldsets = [
            (None, {"fields": ("name", "permission", "audience", "mode", "enabled")}),
            (_("Rows"), {"fields": rows, "description": _grammar(unfolded=obj is None)}),
        ]
        if obj is not None:
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
        return [*self.pick_urls(), *self.explain_urls(), *super().get_urls()]

    def save_model(self, request: HttpRequest, obj: Policy, *args: Any) -> None:
        super().save_model(request, obj, *args)
        for sentence in beside_choices(understand(obj.definition())):
            self.message_user(request, sentence, messages.WARNING)

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        context |= self.test_context() | {"documentation": page("reference/policies#the-language")}
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        documentation = {"documentation": page("reference/policies")}
        return super().changelist_view(request, {**documentation, **(extra_context or {})})

    def action_checkbox(self, obj: Policy) -> SafeString:
        return SafeString("&nbsp;") if in_code(obj) else super().action_checkbox(obj)

    @admin.display(description=_("name"), ordering="name")
    def named(self, policy: Policy) -> SafeString | str:
        if not in_code(policy):
            return policy.name
        source = definition_of(policy).source
        return format_html(
            '{} <span class="auth-rls-note">{}</span>', policy.name, _("in %s") % source
        )

    @admin.display(description=_("permission"), ordering="permission__codename")
    def permission_code(self, policy: Policy) -> SafeString:
        parts = re.findall(r"[^._]*[._]?", definition_of(policy).permission)
        # Long ones are broken behind the app and the action.
        return format_html_join("", "{}<wbr>", ((part,) for part in parts if part))

    @admin.display(description=_("for"), ordering="audience")
    def applies(self, policy: Policy) -> SafeString | str:
        audience = policy.get_audience_display()
        if policy.mode != Policy.Mode.RESTRICTIVE:
            return audience
        return format_html(
            '{} <span class="auth-rls-tag">{}</span>', audience, policy.get_mode_display()
        )

    @admin.display(description=_("what it does"))
    def words(self, policy: Policy) -> SafeString:
        return policy_list.words(definition_of(policy))

    @admin.display(description=_("state"))
    def state(self, policy: Policy) -> SafeString:
        enabled = in_code(policy) or policy.enabled
        return policy_list.state(definition_of(policy), enabled=enabled)

    @admin.display(description=_("columns"))
    def columns(self, policy: Policy) -> SafeString:
        """The columns that predicates may name. `columns.js` reads them anew when another
        permission is chosen."""
        url = reverse(f"{self.admin_site.name}:auth_rls_policy_columns")
        return format_html(
            '<div id="auth-rls-columns" data-url="{}">{}</div>', url, columns_table(policy)
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
