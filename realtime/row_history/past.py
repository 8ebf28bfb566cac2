"""`realtime.as_of`: rows as they were at an earlier position.

The present rows are read first, then the changes after the position: the first change after it that
names a row says how the row was, and rows that none names are as they are. What is committed in
between is among the changes, so no lock and no snapshot is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, overload

import msgspec
from django.conf import settings
from django.db import connections, models

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import columns as columns_named
from auth_rls.sql.columns import Column, columns_of, concrete, value_field
from auth_rls.sql.compile import condition
from auth_rls.sql.inheritance import parent_links
from auth_rls.sql.rows import loaded
from realtime import conf
from realtime.event_log.event import RowImage, row_of
from realtime.row_history.changes import key_of, moved
from realtime.row_history.entries import Entry, Key, TableEntries, entries_of
from realtime.row_history.errors import HistoryLost
from realtime.row_history.position import Position, position
from realtime.row_history.sight import Sight
from realtime.row_history.walk import walk
from realtime.subscriptions.queryset_filter import condition_of
from realtime.wal import published, row_images
from realtime.wal.entry import Relation

# Rows that an answer has at most, and that may have changed since; and the bytes of their images.
_MOST_ROWS = 100_000
_MOST_BYTES = 256 * 1024 * 1024


@overload
def as_of(what: models.QuerySet[Any], at: Any, *, subject: Any = None) -> list[Any]: ...
@overload
def as_of(what: models.Model, at: Any, *, subject: Any = None) -> Any: ...
def as_of(what: Any, at: Any, *, subject: Any = None) -> Any:
    """Rows of a published model as they were at a seq or a time.

    For an instance its row as an instance, or None if it did not exist; it is followed through
    changes of its key. For a queryset a list of instances: the rows that its filters match as they
    were then, in the order of their primary keys. All filters on the model's own columns are
    possible that policies have words for.

    The instances are of the past: saving, deleting and refreshing them raises TypeError. They have
    the columns that are published today and were captured ever since; reading another field raises
    HistoryLost.

    `at`: everything up to this seq, or committed up to this time, had happened. `subject` is shown
    what today's policies show of the rows as they were, and nothing of a row that is hidden from it
    today; by default it is the service role.

    Raises HistoryLost where the log cannot tell; ValueError for a position that is still to come,
    and for a queryset whose rows cannot be told by its filters; LookupError for a model that is not
    published.
    """
    if isinstance(what, models.QuerySet):
        return _rows_as_of(what, at, subject)
    if isinstance(what, models.Model):
        return _row_as_of(what, at, subject)
    raise TypeError(f"expected a model instance or a queryset, not {type(what).__name__}")


# --- one row --------------------------------------------------------------------------------------


def _row_as_of(instance: models.Model, at: Any, subject: Any) -> Any:
    model = _of_one_table(type(instance))
    alias = conf.current().DATABASE
    sight = Sight(subject, model, alias)
    entries = entries_of(alias, model)
    then = position(entries, model, at)
    if sight.hides(instance.pk):
        return None
    present = _present(entries, models.QuerySet(model, using=alias).filter(pk=instance.pk))
    key = key_of(instance, model)
    try:
        image = _image_then(entries, then, key, [*present.values()])
    except HistoryLost:
        if sight.everything:
            raise
        # Of a hidden row nothing is told either.
        return None
    if image is None or not sight.image(image):
        return None
    if not present and not sight.everything and _has_moved(entries, key):
        # Under the key that it has now the row may be hidden.
        return None
    return _instance(model, then, image)


def _has_moved(entries: TableEntries, key: Key) -> bool:
    newest = next((entry for entry in walk(entries, key) if isinstance(entry, Entry)), None)
    return newest is not None and moved(newest)


def _image_then(
    entries: TableEntries, then: Position, key: Key, present: Sequence[RowImage]
) -> RowImage | None:
    first: Entry | None = None
    for entry in walk(entries, key, then.seq):
        if isinstance(entry, Entry):
            first = entry
    if first is None:
        return present[0] if present else None
    if first.event.op != "TRUNCATE":
        return first.event.old
    # How the row was before is told by its last entry before the position alone.
    for entry in walk(entries, key):
        if isinstance(entry, Entry) and 0 < entry.event.seq <= then.seq:
            return entry.event.new
    raise HistoryLost("the table was emptied since, and no earlier change of the row is kept")


# --- the rows of a queryset -----------------------------------------------------------------------


def _rows_as_of(queryset: models.QuerySet[Any], at: Any, subject: Any) -> list[Any]:
    model = _of_one_table(queryset.model)
    if queryset.query.order_by or queryset.query.extra_order_by:
        raise ValueError("rows of the past come in the order of their keys; sort the list")
    predicate = condition_of(queryset)
    alias = conf.current().DATABASE
    sight = Sight(subject, model, alias)
    entries = entries_of(alias, model)
    then = position(entries, model, at)
    unknown = sorted(columns_named(predicate) - {*then.columns})
    if unknown:
        raise HistoryLost(
            f"{', '.join(unknown)} of {model._meta.label} was not captured ever since"
        )
    matches = matcher(predicate)
    # By the predicate too, so that both kinds of rows are judged alike.
    rows = _present(entries, sight.rows().filter(condition(predicate, model)))
    changed = _changed_since(entries, then)
    found = [row for key, row in rows.items() if key not in changed.then and sight.image(row)]
    returned = {
        key: row
        for key, row in changed.then.items()
        # The policies first: how long a filter takes tells of the row that it judges.
        if row is not None and sight.image(row) and matches(row) is True
    }
    hidden = changed.hidden(sight, returned)
    found += [row for key, row in returned.items() if key not in hidden]
    made = [_instance(model, then, row) for row in found]
    return sorted(made, key=lambda instance: _order(instance.pk))


def _order(pk: Any) -> Any:
    try:
        pk < pk  # noqa: B015
    except TypeError:
        return str(pk)
    return pk


class _Changed:
    """The rows that have changed since a position: `then` as they were, by their keys then; None
    for those that did not exist."""

    def __init__(self) -> None:
        self.then: dict[Key, RowImage | None] = {}
        # The keys that rows have now, of those that were there under another one.
        self._now: dict[Key, Key] = {}
        self._before: dict[Key, Key] = {}

    def add(self, before: Key | None, old: RowImage | None, after: Key | None) -> None:
        """The next change, with the key and the row before it, and the key after it."""
        if before is not None:
            self.then.setdefault(before, old)
        if after is not None:
            self.then.setdefault(after, None)
        if before is None or before == after:
            return
        first = self._before.pop(before, before)
        self._now.pop(first, None)
        if after is not None:
            self._now[first], self._before[after] = after, first

    def hidden(self, sight: Sight, keys: Iterable[Key]) -> set[Key]:
        """Those of the keys whose rows are hidden from the subject today. In doubt one is: where
        the row has left its key, or another one has taken it."""
        if sight.everything:
            return set()
        present = {key: {key, self._now.get(key, key)} for key in keys}
        pks = {key: _pk(sight.model, key) for both in present.values() for key in both}
        gone = sight.hidden(list(pks.values()))
        return {key for key, both in present.items() if any(pks[one] in gone for one in both)}


def _pk(model: type[models.Model], key: Key) -> Any:
    """The primary key of a row as the model has it."""
    parts = tuple(
        loaded(field, value) for field, value in zip(model._meta.pk_fields, key, strict=True)
    )
    return parts[0] if len(parts) == 1 else parts


def _changed_since(entries: TableEntries, then: Position) -> _Changed:
    """Raises HistoryLost."""
    found = _Changed()
    size = 0
    for entry in entries.after(then.seq):
        event = entry.event
        if event.op == "TRUNCATE":
            raise HistoryLost(
                f"the table was emptied at seq {event.seq}, and the log does not have the rows "
                "that it held"
            )
        before, after = entry.key("old"), entry.key("new")
        if (event.old is not None and before is None) or (event.new is not None and after is None):
            raise HistoryLost(f"the change at seq {event.seq} has a key that cannot be read")
        if before is not None and before not in found.then and event.old is not None:
            size += len(event.old.raw)
        found.add(before, event.old, after)
        _bound(len(found.then), size, "have changed since")
    return found


def _bound(rows: int, size: int, what: str) -> None:
    """Raise HistoryLost for more rows or bytes than are held in memory."""
    if rows > _MOST_ROWS or size > _MOST_BYTES:
        raise HistoryLost(
            f"more than {_MOST_ROWS:,} rows, or {_MOST_BYTES:,} bytes of them, {what}"
        )


# --- present rows, and instances of the past ------------------------------------------------------


def _present(entries: TableEntries, rows: models.QuerySet[Any]) -> dict[Key, RowImage]:
    """The rows by their keys, as images: what the capture trigger would write of them."""
    model = rows.model
    connection = connections[entries.alias]
    relation = published.relation_for(model)
    with row_images.printing(connection):
        image = models.expressions.RawSQL(
            _sql(entries.alias, model, relation), [], models.BinaryField()
        )
        read = rows.order_by().values_list(image, flat=True)[: _MOST_ROWS + 1]
        found: list[RowImage] = []
        size = 0
        for raw in read.iterator(chunk_size=500):
            found.append(row_of(raw, relation))
            size += len(found[-1].raw)
            _bound(len(found), size, "are there")
    return {tuple(row.get(name) for name in relation.key): row for row in found}


def _sql(alias: str, model: type[models.Model], relation: Relation) -> str:
    return row_images.expression(alias, model, relation).replace("%", "%%")


def _instance(model: type[models.Model], then: Position, image: RowImage) -> Any:
    """An instance with the columns of the image that are known, which cannot be saved."""
    columns = columns_of(model)
    cells = image.cells()
    names, values = [], []
    for name in then.columns:
        column = columns.get(name)
        if column is None or name not in cells:
            continue
        try:
            value = value_of(column, image, bytes(cells[name]))
        except (ValueError, TypeError, ArithmeticError):
            # What is not of its column's kind cannot be told.
            continue
        names.append(column.attname)
        values.append(value)
    made = model.from_db(conf.current().DATABASE, names, values)
    made._state.adding = True
    for method in ("save", "save_base", "asave", "delete", "adelete"):
        setattr(made, method, partial(_refuse, model._meta.verbose_name, method))
    for method in ("refresh_from_db", "arefresh_from_db"):
        setattr(made, method, partial(_unknown, model._meta.label))
    return made


def value_of(column: Column, image: RowImage, cell: bytes) -> Any:
    """The value that an instance has for a cell of an image. Raises ValueError and what the field's
    own code raises."""
    if cell == b"null":
        return None
    field: Any = value_field(column.field)
    if column.kind is Kind.BINARY:
        return bytes.fromhex(msgspec.json.decode(cell))
    if column.kind is Kind.JSON:
        return json.loads(cell, cls=field.decoder)
    if column.kind is Kind.TEXT:
        return loaded(column.field, msgspec.json.decode(cell))
    if column.name not in image:
        raise ValueError(f"{column.name}: no {column.kind}")
    value = image[column.name]
    if column.kind is Kind.DATETIME:
        value = value if settings.USE_TZ else value.replace(tzinfo=None)
    return loaded(column.field, value)


def _refuse(name: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    raise TypeError(
        f"this {name} is as it was at an earlier time; {method}() would write the past over the "
        "present. Use realtime.row_history.revert."
    )


def _unknown(label: str, *args: Any, fields: Any = None, **kwargs: Any) -> Any:
    if fields:
        raise HistoryLost(
            f"{', '.join(fields)} of {label} is not known: it is not published, or was not "
            "captured ever since"
        )
    raise TypeError(f"this {label} is as it was at an earlier time; it cannot be read again")


def _of_one_table(model: type[models.Model]) -> type[models.Model]:
    model = concrete(model)
    published.shape_of(model)
    if parent_links(model):
        raise ValueError(
            f"the columns of {model._meta.label} are in several tables; ask for the rows of each "
            "model by itself"
        )
    return model
