"""What a member of staff may view, and which policies they may change.

The pages beside the policies answer questions about rows, and a verdict or a count discloses as
much of a row as its values do. So no answer depends on a row, a column or a user that the reader
may not view. Owns that decision. It may query the database.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten, flatten_fieldsets
from django.contrib.auth import get_permission_codename, get_user_model
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from auth_rls.access.querysets import bound_predicate, permitted
from auth_rls.access.snapshot import permission_name
from auth_rls.models import Policy
from auth_rls.policy import reach
from auth_rls.policy.definition import (
    ACTIONS,
    PolicyProblem,
    Understood,
    tables,
    target,
    user_column,
)
from auth_rls.predicates.predicate import TRUE, columns, refs
from auth_rls.sql.columns import columns_of, concrete
from auth_rls.sql.inheritance import parent_links
from auth_rls.sql.primary import at_primary, primary


class Reader:
    """The user of one request to an admin site."""

    def __init__(self, request: HttpRequest, site: admin.AdminSite) -> None:
        self._request = request
        self._user: Any = request.user
        self._site = site

    def holds(self, model: type[models.Model], action: str) -> bool:
        """Whether the reader may write policies about `action` on rows of `model`: the reader must
        have the permission itself. As in the admin, the right to change includes the right to
        view."""
        names = [permission_name(model, action)]
        if action == "view":
            names.append(permission_name(model, "change"))
        return any(self._user.has_perm(name) for name in names)

    def may_decide(self, policy: Policy) -> bool:
        """Whether the reader may change or delete `policy` as it is stored."""
        try:
            return self.holds(*target(policy.definition()))
        except PolicyProblem:
            return True  # The model is not known, so the policy decides about no row.

    def rows(self, model: type[models.Model]) -> models.QuerySet[Any]:
        """The rows of `model` that the reader may view: those that the admin site lists for them
        or, if the site does not have the model, those that policies let them view. Editors of
        policies could give themselves all rows, so they may view all."""
        model = concrete(model)
        # No manager: policies also decide about rows that a manager hides.
        rows: models.QuerySet[Any] = models.QuerySet(model, using=primary(model))
        if self._user.is_superuser:
            return rows
        if not self.may_view(model):
            return rows.none()
        for link in parent_links(model):
            of_parent = self.rows(link.parent).order_by().values(link.target.attname)
            rows = rows.filter(**{f"{link.field.attname}__in": of_parent})
        if self._edits(model):
            return rows
        shown = self._shown_by_site(model)
        if shown is not None:
            return rows.filter(pk__in=shown.order_by().values("pk"))
        return permitted(rows, self._user, "view")

    def sees_all_rows(self, model: type[models.Model]) -> bool:
        """Whether no row of `model` is hidden from the reader."""
        model = concrete(model)
        if self._user.is_superuser:
            return True
        if not self.may_view(model):
            return False
        if not all(self.sees_all_rows(link.parent) for link in parent_links(model)):
            return False
        if self._edits(model):
            return True
        shown = self._shown_by_site(model)
        if shown is not None:
            return not (shown.query.where or shown.query.is_sliced or shown.query.combinator)
        from auth_rls.subjects.subject import Subject

        return bound_predicate(Subject.from_user(self._user), model, "view") == TRUE

    def hidden_columns(self, model: type[models.Model], names: Iterable[str]) -> list[str]:
        """Those of the columns that the reader may not view, even of rows that they may: columns
        that are neither open nor shown by the admin site."""
        if self._user.is_superuser:
            return []
        model = concrete(model)
        shown = reach.open_columns(model)
        registered = self._site.get_model_admin(model) if self._registered(model) else None
        if registered is not None and registered.has_view_permission(self._request):
            on_site = {
                *flatten_fieldsets(registered.get_fieldsets(self._request)),
                *flatten(registered.get_list_display(self._request)),
            }
            shown = (shown or frozenset()) | {
                name for name, column in columns_of(model).items() if on_site & {*column.names}
            }
        if shown is None:
            # The project restricts no single columns of this model.
            shown = reach.without_secrets(model)
        return sorted(name for name in names if name not in shown)

    def objections(self, policies: Iterable[Understood]) -> list[str]:
        """Why the reader may not learn the outcome of these policies, beside the rows that they are
        about; empty if they may."""
        found: dict[str, None] = {}
        for understood in policies:
            rule = understood.rule
            for predicate in (rule.using, rule.with_check):
                if predicate is None:
                    continue
                if understood.action in ACTIONS:
                    self._object(found, understood.model, columns(predicate))
                of_user = {
                    user_column(ref.path[0]) for ref in refs(predicate) if ref.source == "user"
                }
                self._object(found, get_user_model(), of_user)
                for model, read in tables(predicate).items():
                    if not self.sees_all_rows(model):
                        rows = model._meta.verbose_name_plural
                        found[_("You may not view all %(rows)s.") % {"rows": rows}] = None
                    self._object(found, model, read)
        return list(found)

    def text_of(self, row: models.Model) -> str:
        """The row as text; empty if that may hold a column that the reader may not view. What the
        admin site shows of its rows anyway, the text of each among it, is no secret."""
        model = type(row)
        if not self._registered(concrete(model)) and self.hidden_columns(model, columns_of(model)):
            return ""
        return str(row)

    def is_self(self, named: str) -> bool:
        """Whether `named` is the reader's own name or primary key."""
        return named in (self._user.get_username(), str(self._user.pk))

    def may_ask_about(self, user_id: Any) -> bool:
        """Whether the reader may learn anything about the user with this primary key; None stands
        for no user."""
        if user_id is None or str(user_id) == str(self._user.pk):
            return True
        return self.sees_all_rows(get_user_model())

    def _object(
        self, found: dict[str, None], model: type[models.Model], names: Iterable[str]
    ) -> None:
        for name in self.hidden_columns(model, names):
            values = {"column": name, "rows": model._meta.verbose_name_plural}
            found[_("You may not view the column %(column)s of %(rows)s.") % values] = None

    def may_view(self, model: type[models.Model]) -> bool:
        """Whether the reader may view rows of `model` at all: without the permission the admin
        shows none. In multi-table inheritance the permissions on the parents are needed too."""
        if not all(self.may_view(link.parent) for link in parent_links(model)):
            return False
        options = model._meta
        allowed = any(
            self._user.has_perm(f"{options.app_label}.{get_permission_codename(action, options)}")
            for action in ("view", "change")
        )
        if not allowed or not self._registered(model):
            return allowed
        return self._site.get_model_admin(model).has_view_permission(self._request)

    def _edits(self, model: type[models.Model]) -> bool:
        """Whether the reader may write policies on viewing `model`."""
        codenames = [get_permission_codename(action, Policy._meta) for action in ("add", "change")]
        return reach.is_open(model) and any(
            self._user.has_perm(f"{Policy._meta.app_label}.{codename}") for codename in codenames
        )

    def _shown_by_site(self, model: type[models.Model]) -> models.QuerySet[Any] | None:
        if not self._registered(model):
            return None
        return at_primary(self._site.get_model_admin(model).get_queryset(self._request))

    def _registered(self, model: type[models.Model]) -> bool:
        return self._site.is_registered(model)
