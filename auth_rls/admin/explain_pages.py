"""Two pages beside the policies in the admin: why a row is shown or not, and the trial of a policy.

Owns the forms and the layout. The answers come from `explain`; `Reader` decides what the reader may
learn. Both pages change nothing.

Readers of policies may ask about any row. If the row, a column that a policy reads, or the user is
hidden from the reader, nothing is looked up: the page shows the policies as they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import django
from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, DatabaseError, models
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from auth_rls.admin.pickers import PickInput, locate, name_of_users
from auth_rls.admin.reader import Reader
from auth_rls.documentation import page
from auth_rls.explain.askers import Asker, asker, claims_from
from auth_rls.explain.clauses import (
    WITHHELD,
    Applicability,
    Clause,
    Explanation,
    PolicyReport,
    Verdict,
)
from auth_rls.explain.errors import ExplainError
from auth_rls.explain.questions import (
    Answer,
    action_on,
    answer,
    candidates,
    has_row,
    key_text,
    outline,
    question,
)
from auth_rls.explain.text import sides, word
from auth_rls.explain.trial import Trial, trial
from auth_rls.models import Policy
from auth_rls.policy.choices import beside_choices
from auth_rls.policy.database_check import apart, reason
from auth_rls.policy.definition import ACTIONS, Understood, target, understand
from auth_rls.sql.inheritance import ancestors


class ExplainForm(forms.Form):
    """A subject, a permission and a row."""

    user = forms.CharField(
        label=_("User"), required=False, max_length=254, widget=PickInput("auth_rls_policy_users")
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
        widget=PickInput("auth_rls_policy_permissions?by=code"),
    )
    pk = forms.CharField(
        label=_("Row"),
        max_length=255,
        help_text=_("Its primary key; for a permission on topics, the topic's name."),
        widget=PickInput("auth_rls_policy_rows", beside="permission"),
    )

    def __init__(self, *args: Any, site: admin.AdminSite, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["user"].help_text = _(
            "By %(name)s or primary key. Without a user and claims: an anonymous visitor."
        ) % {"name": name_of_users()}
        locate(self, site)

    def answer(self, reader: Reader) -> Answer | Withheld | None:
        """The answer for `reader`; None if the question is wrong, with the error at its field."""
        data = self.cleaned_data
        permission, pk = data["permission"].strip(), data["pk"].strip()
        try:
            claims = claims_from(data["claims"]) if data["claims"].strip() else None
            model, action = action_on(permission)
            with apart(DEFAULT_DB_ALIAS):
                reasons = _objections(reader, model, action, pk)
                who = None if reasons else _visible_asker(reader, data["user"], claims)
                if who is None:
                    reasons = [*reasons, *([] if reasons else [str(_HIDDEN_USER)])]
                    return Withheld(model._meta.label, action, reasons, outline(model, action))
                return answer(who, question(who, permission, pk))
        except ExplainError as error:
            field = "pk" if error.field == "topic" else error.field
            self.add_error(field if field in self.fields else None, error.message)
        except DatabaseError as error:
            self.add_error(None, _("The database cannot tell: %s.") % reason(error))
        return None


class TestForm(forms.Form):
    """The user of a trial, in the form of a policy."""

    # Without this, pytest would collect the class, because of its name.
    __test__ = False

    test_user = forms.CharField(
        label=_("User"), required=False, max_length=254, widget=PickInput("auth_rls_policy_users")
    )

    def __init__(self, *, site: admin.AdminSite) -> None:
        super().__init__(auto_id="auth-rls-%s")
        self.fields["test_user"].help_text = _(
            "By %(name)s or primary key; empty for an anonymous visitor."
        ) % {"name": name_of_users()}
        locate(self, site)


@dataclass(frozen=True, slots=True)
class Withheld:
    """In place of an answer that would disclose what the reader may not view: the reasons, and the
    policies without verdicts or values."""

    model: str
    action: str
    reasons: list[str]
    explanation: Explanation


class ExplainPages:
    """The two pages, as a base class of the admin of policies."""

    admin_site: admin.AdminSite

    def explain_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("explain/", wrap(self.explain_view), name="auth_rls_policy_explain"),
            path("test/", wrap(self.test_view), name="auth_rls_policy_test"),
        ]

    def explain_view(self: Any, request: HttpRequest) -> HttpResponse:
        """Show why the row passes or not. It only reads, so it is a GET and links can be shared."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = "pk" in request.GET
        given: dict[str, Any] = {"data": request.GET} if asked else {"initial": request.GET.dict()}
        form = ExplainForm(**given, site=self.admin_site)
        reader = Reader(request, self.admin_site)
        found = form.answer(reader) if asked and form.is_valid() else None
        hidden = found if isinstance(found, Withheld) else None
        context = {
            **self.admin_site.each_context(request),
            "opts": Policy._meta,
            "title": _("Explain"),
            "form": form,
            "documentation": page("reference/policies#why-a-row-is-shown-or-not"),
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
            "answer": None if hidden else found,
            "row": reader.text_of(found.question.instance) if isinstance(found, Answer) else "",
            "hidden": hidden,
            "policies": _policies(found),
            "media": self.media + form.media,
        }
        return TemplateResponse(request, "admin/auth_rls/policy/explain.html", context)

    def test_view(self: Any, request: HttpRequest) -> HttpResponse:
        """Show which rows a user would get under the unsaved policy in the form."""
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
        reader = Reader(request, self.admin_site)
        try:
            if not form.is_valid():
                raise ExplainError("", str(_("The policy cannot be tested as it stands.")))
            policy = form.instance
            definition = policy.definition()
            model, action = target(definition)
            with apart(DEFAULT_DB_ALIAS):
                objections = reader.objections(_understood(model, action))
                who = _visible_asker(reader, request.POST.get("test_user", ""), None)
                if objections or who is None:
                    raise ExplainError("", " ".join(objections) or str(_HIDDEN_USER))
                found = trial(
                    who,
                    definition,
                    enabled=policy.enabled,
                    replaces=replaces,
                    among=reader.rows(model) if action in ACTIONS else None,
                )
        except ExplainError as error:
            context |= {"problem": error.message, "errors": _errors(form)}
        except DatabaseError as error:
            context |= {"problem": _("The database cannot tell: %s.") % reason(error)}
        else:
            bypasses = not who.refused and who.subject.bypasses_rls
            context |= {"who": who.words, "refused": who.refused, "bypasses": bypasses}
            context |= {"policy": form.instance, "trial": found}
            if found is not None:
                context |= {"lists": _lists(found, reader)}
                context["partly"] = not reader.sees_all_rows(model)
            context["warnings"] = beside_choices(understand(definition))
        return TemplateResponse(request, "admin/auth_rls/policy/test.html", context)

    def test_context(self: Any) -> dict[str, Any]:
        """The context of the panel in the policy form."""
        return {"test_form": TestForm(site=self.admin_site)}


_HIDDEN_USER = _("You may not view other users.")


def _objections(reader: Reader, model: type[models.Model], action: str, pk: str) -> list[str]:
    """Why the reader may not learn the verdict of the policies on the row `pk`; empty if they may.
    A row that does not exist counts as hidden."""
    found = []
    if action in ACTIONS:
        if not reader.may_view(model):
            rows = model._meta.verbose_name_plural
            found.append(str(_("You may not view %(rows)s.") % {"rows": rows}))
        elif not reader.sees_all_rows(model) and not has_row(reader.rows(model), pk):
            found.append(str(_("You may not view this row.")))
    return found + reader.objections(_understood(model, action))


def _understood(model: type[models.Model], action: str) -> list[Understood]:
    """The policies on the action that can be evaluated, enabled or not, those of the model's
    ancestors too."""
    return [
        Understood(each, action, found.rule)
        for each in (model, *ancestors(model))
        for found in candidates(each, action)
        if found.problem is None
    ]


def _visible_asker(reader: Reader, user: str, claims: dict[str, Any] | None) -> Asker | None:
    """The subject of the question; None for a user whom the reader may not view, whether that user
    exists or not. Raises ExplainError."""
    if reader.sees_all_rows(get_user_model()):
        return _asker(user, claims)
    if user.strip() and not reader.is_self(user.strip()):
        return None
    try:
        who = _asker(user, claims)
    except ExplainError:
        return None
    own = who.user is None or who.user.is_anonymous or reader.may_ask_about(who.user.pk)
    return who if own and reader.may_ask_about(who.subject.user_id) else None


def _asker(user: str, claims: dict[str, Any] | None) -> Asker:
    user = user.strip()
    if not user and claims is None:
        return asker(role="anon")
    return asker(user=user or None, claims=claims)


def _lists(found: Trial, reader: Reader) -> list[dict[str, Any]]:
    """The rows by key and text, those first for which the edit makes a difference."""
    return [
        {
            "kind": kind,
            "title": title,
            "rows": [(key_text(row.pk), reader.text_of(row)) for row in listed.rows],
            "total": listed.counted,
            "cut": listed.counted.more or listed.counted.number > len(listed.rows),
        }
        for kind, title, listed in (
            ("gained", _("New"), found.gained),
            ("lost", _("No longer"), found.lost),
            ("kept", _("As before"), found.kept),
        )
        if listed.rows
    ]


def _errors(form: forms.BaseForm) -> list[str]:
    found = []
    for name, errors in form.errors.items():
        label = form.fields[name].label if name in form.fields else None
        found += [f"{label}: {error}" if label else str(error) for error in errors]
    return found


def _policies(found: Answer | Withheld | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    if isinstance(found, Withheld):
        return [_as_written(report) for report in found.explanation.policies]
    return [_policy(report) for report in found.explanation.policies]


def _as_written(report: PolicyReport) -> dict[str, Any]:
    """The policy without its verdict and the values of the row and the subject."""
    evaluated = report.clause is not None
    return {
        "name": report.name,
        "source": report.source,
        "mode": report.mode,
        "audience": _AUDIENCES.get(report.audience, report.audience),
        "reason": report.reason,
        "decides": False,
        "said": WITHHELD if evaluated else str(report.standing),
        "kind": "broken" if report.standing is Applicability.BROKEN else "off",
        "tree": report.clause and _tree([report.clause], marked=False, withheld=True),
        "check": report.check and _tree([report.check], marked=False, withheld=True),
    }


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


def _tree(clauses: list[Clause], *, marked: bool, withheld: bool = False) -> SafeString:
    return format_html(
        '<ul class="auth-rls-tree">{}</ul>',
        format_html_join("", "{}", ((_clause(clause, marked, withheld),) for clause in clauses)),
    )


def _clause(clause: Clause, marked: bool, withheld: bool) -> SafeString:
    compared = clause.comparison
    return format_html(
        '<li{}><span class="auth-rls-state auth-rls-{}">{}</span> {}{}{}</li>',
        SafeString(' class="auth-rls-decides"') if marked and clause.decides else "",
        "off" if withheld else _class(clause.verdict),
        WITHHELD if withheld else word(clause.verdict),
        clause.text,
        "" if compared is None else format_html('<div class="help">{}</div>', sides(compared)),
        _tree(list(clause.parts), marked=marked, withheld=withheld) if clause.parts else "",
    )
