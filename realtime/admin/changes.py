"""The page "Changes" of an object: what became of its row, read from the log.

Shown is what the policies of today show the member of staff, of an object that the admin lets them
view. Owns the page; what is shown of a row is decided by `realtime.row_history`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import django
from django import forms
from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import select_template
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from auth_rls.admin.reader import Reader
from auth_rls.documentation import page as documentation_page
from auth_rls.sql.columns import columns_of, concrete
from realtime.admin.actors import names_of
from realtime.admin.documents import MAX_VALUE, as_text
from realtime.row_history.changes import RowHistory, history_of
from realtime.row_history.transaction import changes_of
from realtime.subscriptions.change import Change
from realtime.wal import published

# Changes on a page, and how much is looked at for one: numbers of the log, and changes where they
# are filtered.
_PER_PAGE = 25
_MOST_SEARCHED = 100_000
_MOST_FILTERED = 5_000


class ChangesMixin:
    """Adds the page "Changes" to a `ModelAdmin` of a published model:
    `class TaskAdmin(ChangesMixin, admin.ModelAdmin)`.

    It needs what viewing the object needs. Columns that are not published, and rows or images that
    policies hide, are not shown. Of an object that is deleted only those see the changes whom
    policies do not bind.
    """

    admin_site: admin.AdminSite
    model: Any
    opts: Any

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        ours = [
            path("<path:object_id>/changes/", wrap(self.changes_view), name=f"{name}_changes"),
            path(
                "<path:object_id>/changes/<int:seq>/",
                wrap(self.transaction_view),
                name=f"{name}_transaction",
            ),
        ]
        return [*ours, *super().get_urls()]  # type: ignore[misc]

    def render_change_form(
        self: Any, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        response: Any = super().render_change_form(request, context, *args, **kwargs)  # type: ignore[misc]
        original = context.get("original")
        if not hasattr(response, "template_name"):
            return response
        if original is not None and published.published_columns(concrete(self.model)) is not None:
            names = response.template_name
            names = [names] if isinstance(names, str) else names
            response.context_data["realtime_form"] = select_template(names)
            response.context_data["realtime_changes"] = self._changes_url(original.pk)
            response.template_name = "admin/realtime/with_changes.html"
        return response

    def changes_view(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """The changes of one object, the newest first."""
        instance = self._changed_object(request, object_id)
        found = history_of(instance, request.user, actors=True, most_searched=_MOST_SEARCHED)
        actor = request.GET.get("actor", "")
        number = _number(request.GET.get("p"))
        first = (number - 1) * _PER_PAGE
        listed = islice(_by(found, actor), first, first + _PER_PAGE + 1)
        changes = list(listed)
        more = len(changes) > _PER_PAGE
        changes = changes[:_PER_PAGE]
        told = _Told(request, self.admin_site)
        context = {
            "lines": told.lines(changes),
            "own": True,
            "actor": actor,
            "number": number,
            "more": more,
            "searched_to": None if more or actor else found.searched_to,
            "filtered": _MOST_FILTERED if actor and not more else None,
        }
        return self._changes_page(request, instance, _("Changes"), context)

    def transaction_view(self: Any, request: HttpRequest, object_id: str, seq: int) -> HttpResponse:
        """The changes of the transaction that one change belongs to, of all rows that the reader
        may view."""
        instance = self._changed_object(request, object_id)
        found = history_of(instance, request.user, actors=True, most_searched=_MOST_SEARCHED)
        one, txid = next(
            (pair for pair in found.with_transactions() if pair[0].seq <= seq), (None, None)
        )
        if one is None or one.seq != seq:
            raise Http404(_("There is no such change."))
        if txid is None:
            raise Http404(_("The log does not name the transaction of this change."))
        told = _Told(request, self.admin_site)
        changes = [(each, None) for each in changes_of(one, txid, request.user, told.viewable)]
        context = {"lines": told.lines(changes), "own": False}
        return self._changes_page(request, instance, _("Changes of one transaction"), context)

    def _changes_page(
        self: Any, request: HttpRequest, instance: Any, title: str, more: dict[str, Any]
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "subtitle": str(instance) if instance._state.db else None,
            "object": instance if instance._state.db else None,
            "object_url": reverse(
                f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
                args=[quote(instance.pk)],
                current_app=self.admin_site.name,
            ),
            "changes_url": self._changes_url(instance.pk),
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
            "documentation": documentation_page("how-to/row-history"),
            "media": self.media + forms.Media(css={"all": ("realtime/admin.css",)}),
            **more,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/realtime/changes.html", context)

    def _changes_url(self: Any, pk: Any) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changes",
            args=[quote(pk)],
            current_app=self.admin_site.name,
        )

    def _changed_object(self: Any, request: HttpRequest, object_id: str) -> Any:
        """The object whose changes the reader may see, without its values if it is deleted. Raises
        PermissionDenied, Http404."""
        if published.published_columns(concrete(self.model)) is None:
            raise Http404(_("This model is not published."))
        found = self.get_object(request, unquote(object_id))
        if found is not None:
            if not self.has_view_or_change_permission(request, found):
                raise PermissionDenied
            return found
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        gone = _gone(self.model, unquote(object_id))
        # Whether it was in the site's list is not known any more; nor may a hidden row be told
        # from one that is not there.
        if gone is None or not request.user.is_superuser:
            raise Http404(_("There is no such object."))
        return gone


@dataclass(frozen=True, slots=True)
class _Cell:
    """A column of a change: its name for people, the value before and the value after, as text;
    None where there is none to be shown."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class _Line:
    """A change as it is listed."""

    change: Change
    when: str
    what: Any
    who: str
    actor: str | None
    cells: Sequence[_Cell]
    row: str
    url: str | None
    in_transaction: bool


class _Told:
    """Changes in words, for one reader."""

    def __init__(self, request: HttpRequest, site: admin.AdminSite) -> None:
        self._request = request
        self._site = site
        self._reader = Reader(request, site)

    def lines(self, changes: Sequence[tuple[Change, int | None]]) -> list[_Line]:
        """The lines of these changes, each with the number of its transaction if that is to be
        linked."""
        names = self._names(change for change, _ in changes)
        return [self._line(change, txid is not None, names) for change, txid in changes]

    def viewable(self, model: Any, pk: Any) -> bool:
        """Whether the site lets the reader view an object. Of one that is deleted the site cannot
        tell, so it is shown to superusers alone."""
        if not self._site.is_registered(model):
            return bool(self._request.user.is_superuser)
        owner = self._site.get_model_admin(model)
        found = None if isinstance(pk, tuple) else owner.get_object(self._request, str(pk))
        if found is None:
            return bool(self._request.user.is_superuser)
        return bool(owner.has_view_or_change_permission(self._request, found))

    def _names(self, changes: Iterable[Change]) -> dict[str | None, str]:
        """The names of actors, for those who may view all users, and the reader's own."""
        user: Any = self._request.user
        own: dict[str | None, str] = {str(user.pk): user.get_username()}
        if not self._reader.sees_all_rows(get_user_model()):
            return {**own}
        return {**own, **names_of({change.actor for change in changes})}

    def _line(self, change: Change, linked: bool, names: dict[str | None, str]) -> _Line:
        actor = change.actor
        name = names.get(actor)
        model = change.model
        assert model is not None
        url = None
        if self._site.is_registered(model) and change.pk is not None:
            options = model._meta
            url = reverse(
                f"admin:{options.app_label}_{options.model_name}_change",
                args=[quote(change.pk)],
                current_app=self._site.name,
            )
        return _Line(
            change=change,
            when=(change.commit_timestamp or "").replace("T", " ").partition(".")[0],
            what=_WORDS.get(change.type, change.type),
            who=_who(actor, name),
            actor=actor,
            cells=_cells(change),
            row=f"{model._meta.verbose_name} {change.pk}",
            url=url,
            in_transaction=linked,
        )


def _who(actor: str | None, name: str | None) -> str:
    if actor is None:
        return _("no actor")
    return actor if name is None else f"{name} ({actor})"


_WORDS = {
    "INSERT": gettext_lazy("added"),
    "UPDATE": gettext_lazy("changed"),
    "DELETE": gettext_lazy("deleted"),
    "TRUNCATE": gettext_lazy("table emptied"),
}


def _cells(change: Change) -> list[_Cell]:
    assert change.model is not None
    columns = columns_of(concrete(change.model))
    cells = []
    for name in change.changed:
        column = columns.get(name)
        label = name if column is None else str(getattr(column.field, "verbose_name", name))
        before, after = _value(change.old, name), _value(change.new, name)
        if before is None and after is None:
            continue
        cells.append(_Cell(label, before, after))
    return cells


def _value(row: Any, name: str) -> str | None:
    return None if not row or name not in row else as_text(row[name], MAX_VALUE)


def _by(found: RowHistory, actor: str) -> Iterator[tuple[Change, int | None]]:
    """The changes by an actor, or all."""
    if not actor:
        yield from found.with_transactions()
        return
    for change, txid in islice(found.with_transactions(), _MOST_FILTERED):
        if change.actor == actor:
            yield change, txid


def _number(text: str | None) -> int:
    if text and text.isascii() and text.isdigit() and len(text) < 6:
        return max(int(text), 1)
    return 1


def _gone(model: Any, object_id: str) -> Any:
    """An instance with this key and nothing else; None for what cannot be a key."""
    try:
        return model(pk=model._meta.pk.to_python(object_id))
    except (ValidationError, ValueError, TypeError):
        return None
