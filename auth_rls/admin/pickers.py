"""Users, permissions and rows to pick from, and the columns of a model, for the pages of policies.

Owns the fields, what they search, and the answers in the form that select2 reads. `Reader` decides
what may be found: no row, column or user that the reader may not view.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.exceptions import FieldDoesNotExist, PermissionDenied
from django.db import DEFAULT_DB_ALIAS, DatabaseError, models
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from auth_rls.admin.reader import Reader
from auth_rls.explain.errors import ExplainError
from auth_rls.explain.questions import action_on, has_row, key_text, parsed_key
from auth_rls.models import Policy
from auth_rls.policy import reach
from auth_rls.policy.database_check import apart
from auth_rls.policy.definition import ACTIONS, PolicyProblem, own_actions, target
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import policy_operators
from auth_rls.sql.columns import UnsupportedColumn, columns_of

# Results in one answer.
_PAGE = 20
# Digits of a page's number.
_PAGE_DIGITS = 9
# Columns that the search of rows looks through: each costs a look at every row.
_SEARCHED = 4
# What fields for the name of a person are called, beside the user model's own.
_NAMES = ("first_name", "last_name", "full_name", "name")


class PickInput(forms.TextInput):
    """A text field that offers what the server finds. Without JavaScript the value is typed.

    `url` is the name of the view that searches, made an address by `locate`; `beside` is the name
    of the field whose value goes with the search.
    """

    def __init__(self, url: str, beside: str = "", attrs: dict[str, Any] | None = None) -> None:
        super().__init__({"class": "vTextField auth-rls-pick", "autocapitalize": "none"})
        self.attrs |= {"autocomplete": "off", **(attrs or {}), "data-pick": url}
        if beside:
            self.attrs["data-pick-beside"] = beside

    @property
    def media(self) -> forms.Media:
        extra = "" if settings.DEBUG else ".min"
        return forms.Media(
            js=(
                f"admin/js/vendor/jquery/jquery{extra}.js",
                f"admin/js/vendor/select2/select2.full{extra}.js",
                "admin/js/jquery.init.js",
                "auth_rls/pick.js",
            ),
            css={
                "screen": (
                    f"admin/css/vendor/select2/select2{extra}.css",
                    "admin/css/autocomplete.css",
                )
            },
        )


def locate(form: forms.Form, site: admin.AdminSite) -> None:
    """Give the fields of `form` the addresses of their searches on this site."""
    for field in form.fields.values():
        if isinstance(field.widget, PickInput):
            name, _mark, query = field.widget.attrs["data-pick"].partition("?")
            url = reverse(f"{site.name}:{name}")
            field.widget.attrs["data-pick"] = f"{url}?{query}" if query else url


def name_of_users() -> str:
    """What the user model calls the field that people log in by, such as "username"."""
    model = get_user_model()
    field: Any = model._meta.get_field(model.USERNAME_FIELD)
    return str(field.verbose_name)


class PickViews:
    """The searches, as a base class of the admin of policies."""

    admin_site: admin.AdminSite

    def pick_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        views = (
            ("permissions", self.permissions_view),
            ("users", self.users_view),
            ("rows", self.rows_view),
            ("columns", self.columns_view),
        )
        return [
            path(f"{name}/", wrap(view), name=f"auth_rls_policy_{name}") for name, view in views
        ]

    def permissions_view(self: Any, request: HttpRequest) -> JsonResponse:
        """The permissions on rows that match every word, by primary key, or by code where asked
        for as `?by=code`."""
        self._check_staff(request)
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
        if request.GET.get("by") != "code":
            return _answer(request, found, lambda item: (str(item.pk), str(item)))
        found = found.order_by("content_type__app_label", "codename")
        return _answer(request, found, lambda item: (_code(item),) * 2)

    def users_view(self: Any, request: HttpRequest) -> JsonResponse:
        """The users whom the reader may view, by the field that people log in by."""
        self._check_staff(request)
        reader, model = Reader(request, self.admin_site), get_user_model()
        shown = _name_fields(reader, model)
        found = reader.rows(model).order_by(model.USERNAME_FIELD)
        for word in request.GET.get("term", "").split():
            fits = Q()
            for name in (model.USERNAME_FIELD, *shown):
                fits |= Q(**{f"{name}__icontains": word})
            found = found.filter(fits)

        def described(user: Any) -> tuple[str, str]:
            name = user.get_username()
            more = " ".join(str(value) for field in shown if (value := getattr(user, field)))
            return name, f"{name} · {more}" if more and more != name else name

        return _answer(request, found, described)

    def rows_view(self: Any, request: HttpRequest) -> JsonResponse:
        """The rows of the permission's model that the reader may view, by primary key or by the
        text in columns that they may view."""
        self._check_staff(request)
        try:
            model, action = action_on(request.GET.get("permission", "").strip())
        except ExplainError:
            return JsonResponse(_NOTHING)
        if action not in ACTIONS:
            return JsonResponse(_NOTHING)  # about topics, which are in no table
        reader, term = Reader(request, self.admin_site), request.GET.get("term", "").strip()
        found = reader.rows(model).order_by("pk")
        try:
            with apart(DEFAULT_DB_ALIAS):
                if term:
                    fits = Q(pk=parsed_key(model, term)) if has_row(found, term) else Q(pk__in=[])
                    for name in _searched(reader, model):
                        fits |= Q(**{f"{name}__icontains": term})
                    found = found.filter(fits)
                return _answer(request, found, lambda row: _described(row, reader))
        except DatabaseError:
            return JsonResponse(_NOTHING)  # the page itself says what the database cannot tell

    def columns_view(self: Any, request: HttpRequest) -> HttpResponse:
        """The columns that policies on a permission may name, as a part of the form."""
        self._check_staff(request)
        try:
            permission = Permission.objects.select_related("content_type").get(
                pk=request.GET.get("permission") or None
            )
        except (Permission.DoesNotExist, ValueError, OverflowError):
            return HttpResponse(CHOOSE_FIRST)
        return HttpResponse(columns_table(Policy(permission=permission)))

    def _check_staff(self: Any, request: HttpRequest) -> None:
        may = (
            self.has_view_permission,
            self.has_add_permission,
            self.has_change_permission,
        )
        if not any(each(request) for each in may):
            raise PermissionDenied


_NOTHING: dict[str, Any] = {"results": [], "pagination": {"more": False}}

CHOOSE_FIRST = _("Choose a permission: its columns are then listed here.")


def columns_table(policy: Policy) -> SafeString:
    """The columns that the predicates of `policy` may name, with the operators of each."""
    if policy.permission_id is None:
        return format_html("{}", CHOOSE_FIRST)
    try:
        model, _action = target(policy.definition())
        columns = columns_of(model).values()
    except (PolicyProblem, UnsupportedColumn) as error:
        return format_html("{}", error)
    if not reach.is_open(model) and _action in ACTIONS:
        return format_html("{}.", reach.why_closed(model))
    listed = format_html_join(
        "",
        "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
        (
            (
                " or ".join(c.names),
                _kind(c.kind, c.field),
                ", ".join(sorted(policy_operators(c.kind))),
            )
            for c in columns
        ),
    )
    return format_html(
        '<details class="auth-rls-help" open><summary>{}</summary><table>{}</table></details>',
        _("Columns of %(model)s and their operators") % {"model": model._meta.label},
        listed,
    )


def _kind(kind: Kind, field: Any) -> str:
    """A kind, with the table that a foreign key leads to, or the field's choices."""
    if field.remote_field is not None:
        return str(
            _("%(kind)s, key of %(model)s")
            % {"kind": kind, "model": field.related_model._meta.label}
        )
    choices = [str(value) for value, _label in field.flatchoices or ()]
    if not choices:
        return str(kind)
    return f"{kind}: {', '.join(choices[:10])}{' …' if len(choices) > 10 else ''}"


def _answer(request: HttpRequest, found: QuerySet[Any], described: Any) -> JsonResponse:
    """One page of results. Nothing is counted, because tables may be large."""
    number = request.GET.get("page", "1")
    if not (number.isascii() and number.isdigit()):
        number = "1"
    # More digits are no number of Python's, or of the database's.
    if len(number) > _PAGE_DIGITS:
        return JsonResponse(_NOTHING)
    start = (max(int(number), 1) - 1) * _PAGE
    items = list(found[start : start + _PAGE + 1])
    results = [{"id": id_, "text": text} for id_, text in map(described, items[:_PAGE])]
    return JsonResponse({"results": results, "pagination": {"more": len(items) > _PAGE}})


def _code(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _described(row: models.Model, reader: Reader) -> tuple[str, str]:
    key, text = key_text(row.pk), reader.text_of(row)
    return key, f"{key} · {text}" if text else key


def _name_fields(reader: Reader, model: type[models.Model]) -> list[str]:
    """The fields with names of people, and the e-mail address, that the reader may view."""
    email = getattr(model, "EMAIL_FIELD", None)
    found = []
    for name in dict.fromkeys((*_NAMES, *([email] if email else []))):
        try:
            field: Any = model._meta.get_field(name)
        except FieldDoesNotExist:
            continue
        column = getattr(field, "column", None)
        if name == model.USERNAME_FIELD or column is None:  # type: ignore[attr-defined]
            continue
        if not reader.hidden_columns(model, [column]):
            found.append(name)
    return found


def _searched(reader: Reader, model: type[models.Model]) -> list[str]:
    """Fields with text that the reader may view. Never those with secrets: an admin that shows a
    password shows no more than its kind."""
    harmless = reach.without_secrets(model)
    texts = [
        column
        for column in columns_of(model).values()
        if column.kind is Kind.TEXT
        and column.field.remote_field is None
        and column.name in harmless
    ]
    hidden = reader.hidden_columns(model, [column.name for column in texts])
    return [column.field.name for column in texts if column.name not in hidden][:_SEARCHED]
