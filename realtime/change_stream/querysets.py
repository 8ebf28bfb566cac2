"""What a queryset asks for, as a condition on rows and a choice of columns. Reads no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models

from auth_rls.predicates.predicate import TRUE, Predicate
from auth_rls.sql.columns import concrete
from realtime.subscriptions.queryset_filter import NoCondition, condition_of
from realtime.wal import published


class NotFollowed(NoCondition):
    """A part of a queryset has no counterpart in a stream of changes. The text names the part and
    the reason."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.args = (f"changes() cannot follow this queryset: {part}: {reason}",)


@dataclass(frozen=True, slots=True)
class Choice:
    """The rows and columns of a queryset: a bound condition on published columns, and the columns
    to show; None for all."""

    condition: Predicate = TRUE
    select: tuple[str, ...] | None = None


def choice_of(queryset: models.QuerySet[Any]) -> Choice:
    """What the queryset of a published model chooses. `order_by`, `select_related`,
    `prefetch_related` and `select_for_update` say nothing of changes and are passed over.

    Raises NotFollowed, a ValueError.
    """
    try:
        condition = condition_of(queryset)
    except NoCondition as error:
        raise NotFollowed(error.part, error.reason) from None
    model = queryset.model
    shown = published.published_columns(concrete(model)) or frozenset()
    return Choice(condition, _selected(queryset.query, model, shown))


def _selected(
    query: Any, model: type[models.Model], shown: frozenset[str]
) -> tuple[str, ...] | None:
    """The columns of `only` and `defer`."""
    names, deferred = query.deferred_loading
    if not names:
        return None
    columns = {_chosen(name, model, "defer()" if deferred else "only()") for name in names}
    if not deferred:
        if hidden := sorted(columns - shown):
            raise NotFollowed("only()", f"{hidden[0]} is not published")
        return tuple(sorted(columns))
    return tuple(sorted(shown - columns))


def _chosen(name: str, model: type[models.Model], what: str) -> str:
    if "__" in name:
        raise NotFollowed(what, f"{name} is a column of another table")
    options = model._meta
    field = options.pk if name == "pk" else options.get_field(name)
    column = getattr(field, "column", None)
    if column is None:
        raise NotFollowed(what, f"{name} is no column of the table")
    return str(column)
