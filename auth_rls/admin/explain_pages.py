"""Two pages beside the policies in the admin: why a row is shown or not, and a policy tried.

Owns the forms, what each reader may see, and the layout. The answers come from `explain`. Both
pages change nothing.

Readers of policies may ask about any row. The values of the row and of the subject are shown to
readers who may see them elsewhere in the admin, and withheld from all others.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, DatabaseError, models
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from auth_rls.access.snapshot import permission_name
from auth_rls.explain.clauses import (
    Applicability,
    Clause,
    Explanation,
    PolicyReport,
    Verdict,
    withheld,
)
from auth_rls.explain.questions import (
    Answer,
    Asker,
    ExplainError,
    answer,
    asker,
    claims_from,
    question,
)
from auth_rls.explain.text import sides, word
from auth_rls.explain.trial import MOST_SHOWN, Trial, trial
from auth_rls.models import Policy
from auth_rls.policy.database_check import apart, reason
from auth_rls.policy.definition import ACTIONS, actions_of

_MOST_NAMES = 200


class ExplainForm(forms.Form):
    """A subject, a permission and a row."""

    user = forms.CharField(
        label=_("User"),
        required=False,
        max_length=254,
        help_text=_("Name or primary key. Without a user and claims: an anonymous visitor."),
        widget=forms.TextInput(
            attrs={"list": "auth-rls-users", "class": "vTextField", "autocapitalize": "none"}
        ),
    )
    claims = forms.CharField(
        label=_("Claims"),
        required=False,
        max_length=4_000,
        help_text=_("Claims of a token, beside or instead of the user, as JSON."),
        widget=forms.Textarea(
            attrs={"rows": 2, "class": "vLargeTextField auth-rls-json", "spellcheck": "false"}
        ),
    )
    permission = forms.CharField(
        label=_("Permission"),
        max_length=255,
        help_text=_("Written app.codename, such as notes.view_note."),
        widget=forms.TextInput(
            attrs={"list": "auth-rls-permissions", "class": "vTextField", "autocapitalize": "none"}
        ),
    )
    pk = forms.CharField(
        label=_("Row"),
        max_length=255,
        help_text=_("Its primary key; for a permission on topics, the topic's name."),
        widget=forms.TextInput(attrs={"class": "vTextField", "autocapitalize": "none"}),
    )

    def answer(self) -> Answer | None:
        """The answer, or None with the error at the field where the question is wrong."""
        data = self.cleaned_data
        try:
            claims = claims_from(data["claims"]) if data["claims"].strip() else None
            who = _asker(data["user"], claims)
            with apart(DEFAULT_DB_ALIAS):
                return answer(who, question(who, data["permission"].strip(), data["pk"].strip()))
        except ExplainError as error:
            field = "pk" if error.field == "topic" else error.field
            self.add_error(field if field in self.fields else None, error.message)
        except DatabaseError as error:
            self.add_error(None, _("The database cannot tell: %s.") % reason(error))
        return None


class ExplainPages:
    """The two pages, for the admin of policies to inherit."""

    admin_site: admin.AdminSite

    def explain_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("explain/", wrap(self.explain_view), name="auth_rls_policy_explain"),
            path("test/", wrap(self.test_view), name="auth_rls_policy_test"),
        ]

    def explain_view(self: Any, request: HttpRequest) -> HttpResponse:
        """Shows why the row passes or not. It only reads, so it is a GET and links can be
        shared."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = "pk" in request.GET
        form = ExplainForm(request.GET) if asked else ExplainForm(initial=request.GET.dict())
        found = form.answer() if asked and form.is_valid() else None
        explanation, hidden_row, hidden_subject = None, "", ""
        if found is not None:
            hidden_row = self._hidden_row(request, found)
            hidden_subject = _hidden_subject(request, found)
            explanation = withheld(
                found.explanation, row=bool(hidden_row), subject=bool(hidden_subject)
            )
        context = {
            **self.admin_site.each_context(request),
            "opts": Policy._meta,
            "title": _("Explain"),
            "form": form,
            "users": self._user_names(request),
            "permissions": _permissions(),
            "answer": found,
            "hidden_row": hidden_row,
            "hidden_subject": hidden_subject,
            "policies": [] if explanation is None else _policies(explanation),
            "media": self.media + form.media,
        }
        return TemplateResponse(request, "admin/auth_rls/policy/explain.html", context)

    def test_view(self: Any, request: HttpRequest) -> HttpResponse:
        """Shows which rows a user would get under the unsaved policy in the form."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        stored = None
        if request.GET.get("policy"):
            stored = self.get_object(request, request.GET["policy"])
            if stored is None:
                return self._get_obj_does_not_exist_redirect(
                    request, self.opts, request.GET["policy"]
                )
        may = self.has_change_permission if stored else self.has_add_permission
        if not (may(request, stored) if stored else may(request)):
            raise PermissionDenied
        replaces = None if stored is None else stored.name
        form_class = self.get_form(request, stored, change=stored is not None)
        form = form_class(request.POST, instance=stored)
        context = {
            **self.admin_site.each_context(request),
            "opts": Policy._meta,
            "title": _("Test as user"),
            "media": self.media,
        }
        try:
            who = _asker(request.POST.get("test_user", ""), None)
            if not form.is_valid():
                raise ExplainError("", str(_("The policy cannot be tested as it stands.")))
            policy = form.instance
            with apart(DEFAULT_DB_ALIAS):
                found = trial(who, policy.definition(), enabled=policy.enabled, replaces=replaces)
        except ExplainError as error:
            context |= {"problem": error.message, "errors": _errors(form)}
        except DatabaseError as error:
            context |= {"problem": _("The database cannot tell: %s.") % reason(error)}
        else:
            context |= {"who": who.words, "refused": who.refused, "policy": form.instance}
            context |= {"trial": found, "most": MOST_SHOWN}
            if found is not None:
                context |= _shown(found, readable=_may_view(request, found.model))
        return TemplateResponse(request, "admin/auth_rls/policy/test.html", context)

    def test_context(self: Any, request: HttpRequest) -> dict[str, Any]:
        """The context of the panel in the policy form."""
        return {"test_users": self._user_names(request)}

    def _user_names(self: Any, request: HttpRequest) -> list[str]:
        """User names to choose from, for readers who may view users."""
        model = get_user_model()
        if not _may_view(request, model):
            return []
        names = model._base_manager.order_by(model.USERNAME_FIELD)
        return list(names.values_list(model.USERNAME_FIELD, flat=True)[:_MOST_NAMES])

    def _hidden_row(self: Any, request: HttpRequest, found: Answer) -> str:
        """Why this reader may not see the row's values; empty if they may."""
        model = found.question.model
        if found.question.action not in ACTIONS:
            return ""  # A name is all there is of it, and they have typed that.
        if not _may_view(request, model):
            return _("You may not view %(rows)s.") % {"rows": model._meta.verbose_name_plural}
        permission = f"{model._meta.app_label}.{get_permission_codename('view', model._meta)}"
        # Who edits policies could let themselves see any row of the model.
        if not self.has_change_permission(request) and not request.user.has_perm(
            permission, found.question.instance
        ):
            return str(_("You may not view this row."))
        return ""


def _hidden_subject(request: HttpRequest, found: Answer) -> str:
    """Why this reader may not see the subject's values; empty if they may."""
    pk = getattr(found.question.user, "pk", None)
    if pk in (None, request.user.pk) or _may_view(request, get_user_model()):
        return ""
    return str(_("You may not view other users."))


def _asker(user: str, claims: dict[str, Any] | None) -> Asker:
    user = user.strip()
    if not user and claims is None:
        return asker(role="anon")
    return asker(user=user or None, claims=claims)


def _may_view(request: HttpRequest, model: type[models.Model]) -> bool:
    """As the admin would have it: without the permission nobody sees rows of the model there,
    and a policy editor must not come to see them, sessions say, by way of this page."""
    options = model._meta
    return any(
        request.user.has_perm(f"{options.app_label}.{get_permission_codename(action, options)}")
        for action in ("view", "change")
    )


def _permissions() -> list[str]:
    """Permissions to choose from: all permissions of every model that has a policy."""
    found: set[str] = set()
    for name in Policy.objects.order_by().values_list(
        "permission__content_type__app_label", "permission__content_type__model"
    ):
        try:
            model = apps.get_model(*name)
        except LookupError:
            continue
        found.update(permission_name(model, action) for action in actions_of(model))
    return sorted(found)


def _shown(found: Trial, *, readable: bool) -> dict[str, Any]:
    """Rows by key and text, for those who may see them."""
    if not readable:
        return {"unreadable": True}
    return {
        "rows": [(row.pk, str(row), row.pk in found.gained) for row in found.rows],
        "lost": [(row.pk, str(row)) for row in found.lost],
    }


def _errors(form: forms.BaseForm) -> list[str]:
    found = []
    for name, errors in form.errors.items():
        label = form.fields[name].label if name in form.fields else None
        found += [f"{label}: {error}" if label else str(error) for error in errors]
    return found


def _policies(explanation: Explanation) -> list[dict[str, Any]]:
    return [_policy(report) for report in explanation.policies]


def _policy(report: PolicyReport) -> dict[str, Any]:
    asked = report.applies and report.clause is not None
    return {
        "name": report.name,
        "source": report.source,
        "mode": report.mode,
        "audience": _AUDIENCES.get(report.audience, report.audience),
        "reason": report.reason,
        "decides": report.decides,
        "said": word(report.verdict) if asked else str(report.standing),
        "kind": _kind(report),
        "tree": report.clause and _tree([report.clause], marked=report.decides),
        "check": report.check and _tree([report.check], marked=False),
    }


_AUDIENCES = dict(Policy.Audience.choices)


def _kind(report: PolicyReport) -> str:
    if report.standing is Applicability.BROKEN:
        return "broken"
    return _class(report.verdict) if report.applies else "off"


def _class(verdict: Verdict) -> str:
    return {True: "ok", False: "no", None: "unknown"}[verdict]


def _tree(clauses: list[Clause], *, marked: bool) -> SafeString:
    return format_html(
        '<ul class="auth-rls-tree">{}</ul>',
        format_html_join("", "{}", ((_clause(clause, marked),) for clause in clauses)),
    )


def _clause(clause: Clause, marked: bool) -> SafeString:
    compared = clause.comparison
    return format_html(
        '<li{}><span class="auth-rls-state auth-rls-{}">{}</span> {}{}{}</li>',
        SafeString(' class="auth-rls-decides"') if marked and clause.decides else "",
        _class(clause.verdict),
        word(clause.verdict),
        clause.text,
        "" if compared is None else format_html('<div class="help">{}</div>', sides(compared)),
        _tree(list(clause.parts), marked=marked) if clause.parts else "",
    )
