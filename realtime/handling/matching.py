"""Which changes concern a handler: its definition on the tables of its models.

A filter means what it means on the wire, and is judged on the new row of an UPDATE, as the stream
judges it. A handler sees what the service role sees: published columns, and no change of others.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import TRUE
from auth_rls.sql import stored_types
from realtime.event_log.event import DatabaseEvent
from realtime.handling.definition import EMPTIED, HandlerDefinition
from realtime.handling.handled_change import HandledChange, handled_change
from realtime.protocol.filters import FilterError, parse_filter
from realtime.subscriptions.change_payload import unchanged
from realtime.wal import published
from realtime.wal.capture import CannotCapture

NOT_PUBLISHED = "realtime.E030"
BAD_FILTER = "realtime.E031"
UNKNOWN_COLUMN = "realtime.E032"


class UnfitHandler(ImproperlyConfigured):
    """A handler that does not fit its models: `id` is that of the system check."""

    def __init__(self, message: str, hint: str, id_: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.id = id_


@dataclass(frozen=True, slots=True)
class _Table:
    """A handler on one table. `passes` None: it has no filter."""

    model: type[models.Model]
    passes: Callable[[Mapping[str, Any]], bool | None] | None
    columns: tuple[str, ...] | None
    key: str | None


class Matcher:
    """A definition on its tables. Raises UnfitHandler."""

    def __init__(self, definition: HandlerDefinition) -> None:
        self.definition = definition
        self._events = frozenset(definition.events)
        self._tables = {
            _name(definition, model): _table(definition, model) for model in definition.models
        }
        #: Schema and table of each model.
        self.tables = frozenset(self._tables)

    def matches(self, event: DatabaseEvent) -> bool:
        """Whether the handler gets this change."""
        relation = event.relation
        table = self._tables.get((relation.schema, relation.table))
        if table is None or not relation.published or event.op not in self._events:
            return False
        if event.op == EMPTIED:
            return True
        if event.op == "UPDATE" and (unchanged(event) or not _concerns(event, table.columns)):
            return False
        if table.passes is None:
            return True
        row = event.new if event.new is not None else event.old
        return row is not None and table.passes(row) is True

    def change(self, event: DatabaseEvent, epoch: str) -> HandledChange:
        """A change that the handler gets, as it gets it."""
        model = self._tables[event.relation.schema, event.relation.table].model
        return handled_change(event, model, self.definition.name, epoch)

    def keys(self, event: DatabaseEvent) -> tuple[str, ...] | None:
        """The values of the handler's key before and after a change, as texts; one if they are the
        same. None for a change that concerns any key: a table that was emptied."""
        key = self._tables[event.relation.schema, event.relation.table].key
        if key is None or event.op == EMPTIED:
            return None
        rows = (row for row in (event.old, event.new) if row is not None)
        return tuple(dict.fromkeys(repr(row.get(key)) for row in rows))


def _concerns(event: DatabaseEvent, columns: tuple[str, ...] | None) -> bool:
    old, new = event.old, event.new
    if columns is None or old is None or new is None:
        return True
    # As JSON, where 1 is neither 1.0 nor true.
    before, after = old.cells(), new.cells()
    return any(before.get(name) != after.get(name) for name in columns)


def _name(definition: HandlerDefinition, model: type[models.Model]) -> tuple[str, str]:
    entry = published.declarations.get(model._meta.label_lower)
    if entry is None:
        raise UnfitHandler(
            f"The handler {definition.name!r} is for {model._meta.label}, which is not published, "
            "so its changes are not captured.",
            "Put @publish on the model, or call publish(...) in an AppConfig.ready().",
            NOT_PUBLISHED,
        )
    return entry.schema, entry.table


def _table(definition: HandlerDefinition, model: type[models.Model]) -> _Table:
    try:
        shape = published.shape_of(model)
    except CannotCapture as error:
        raise UnfitHandler(
            f"The handler {definition.name!r} is for {model._meta.label}, which cannot be "
            f"captured: {error.message}",
            error.hint,
            NOT_PUBLISHED,
        ) from None
    kinds = {column.name: column.kind for column in shape}
    fits = {name: stored_types.fit_of(model, name) for name in kinds}
    try:
        predicate = parse_filter(definition.filter, kinds, fits)
    except FilterError as error:
        raise UnfitHandler(
            f"The filter {definition.filter!r} of the handler {definition.name!r} does not fit "
            f"{model._meta.label}: {error.message}",
            error.hint or 'Filters are written as for a socket: "status=eq.paid,total=gt.100".',
            BAD_FILTER,
        ) from None
    columns = definition.columns
    return _Table(
        model,
        None if predicate == TRUE else matcher(predicate),
        None if columns is None else tuple(_column(definition, model, name) for name in columns),
        None if definition.key is None else _column(definition, model, definition.key),
    )


def _column(definition: HandlerDefinition, model: type[models.Model], name: str) -> str:
    """The published column that `name` means: its own name, or that of its field."""
    shown = {column.name for column in published.shape_of(model)}
    known = {
        alias: field.column
        for field in model._meta.local_concrete_fields
        if field.column in shown
        for alias in (field.column, field.attname, field.name)
    }
    if name == "pk" and len(model._meta.pk_fields) == 1:
        name = model._meta.pk_fields[0].column or ""
    if name in known:
        return str(known[name])
    close = difflib.get_close_matches(name, list(known), n=1)
    raise UnfitHandler(
        f"The handler {definition.name!r} names {name!r}, which is no published column of "
        f"{model._meta.label}.",
        f"Did you mean {close[0]!r}?" if close else f"Its columns: {', '.join(sorted(shown))}.",
        UNKNOWN_COLUMN,
    )
