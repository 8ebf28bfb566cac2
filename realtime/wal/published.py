"""What is published: the declarations that `publish` makes, and the captures they ask for.

Declaring touches neither the app registry nor the database. `relation_for` asks `auth_rls` which
columns decide access, so it runs in a database thread.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import models

from auth_rls.sql.columns import Column
from auth_rls.sql.secret_columns import is_secret
from realtime.util.interned import interned
from realtime.wal import capture as shapes
from realtime.wal.capture import CannotCapture, Capture
from realtime.wal.entry import ColumnInfo, Relation, Shown

#: A hundred years.
MOST_HISTORY_DAYS = 36_525

AnyModel = TypeVar("AnyModel", bound=type[models.Model])


@dataclass(frozen=True, slots=True)
class Published:
    """One declaration. `columns` None means all; names are column, field or attribute names.
    `history_days`: how long entries are kept apart from the log; None if they are not."""

    model: type[models.Model]
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    history_days: float | None = None

    @property
    def schema(self) -> str:
        """The schema that clients know the table in."""
        return shapes.table_name_of(self.model)[0]

    @property
    def table(self) -> str:
        return shapes.table_name_of(self.model)[1]


# Every declaration, by the model's label in lower case: a model class made anew replaces its
# predecessor.
declarations: dict[str, Published] = {}
# Tables of this app by which processes notify each other, and the operations captured of them.
_internal: dict[type[models.Model], frozenset[str]] = {}


@overload
def publish(model: AnyModel, /) -> AnyModel: ...
@overload
def publish(
    model: AnyModel,
    /,
    *,
    columns: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    history: Mapping[str, float] | None = None,
) -> AnyModel: ...
@overload
def publish(
    *,
    columns: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    history: Mapping[str, float] | None = None,
) -> Callable[[AnyModel], AnyModel]: ...
def publish(
    model: Any = None,
    /,
    *,
    columns: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    history: Mapping[str, float] | None = None,
) -> Any:
    """Publish a model's rows: `@publish`, `@publish(exclude=[...])` or `publish(User, ...)`.

    `history={"days": n}` keeps the changes of its rows for so many days, also where RETENTION is
    shorter, for `realtime.history` and `realtime.as_of`. `manage.py migrate` begins to keep them.

    The primary key is always published. A later declaration for the same model replaces the
    earlier one. A name that the model does not have, and a model that cannot be captured, are
    reported by the system checks (realtime.E001 to E003), and so is a column that seems to hold a
    secret, such as a password's hash, and is not named in `columns` (E006).

    Raises ImproperlyConfigured for what is no model, when both `columns` and `exclude` are given,
    and for a `history` without a number of days.
    """
    if columns is not None and exclude is not None:
        raise ImproperlyConfigured("publish() takes columns=[...] or exclude=[...], not both.")
    for name, value in (("columns", columns), ("exclude", exclude)):
        if isinstance(value, str):
            raise ImproperlyConfigured(
                f"publish({name}=...) takes a list of names, such as [{value!r}]."
            )

    days = None if history is None else _days(history)

    def declare(model: Any) -> Any:
        if not (isinstance(model, type) and issubclass(model, models.Model)):
            raise ImproperlyConfigured(f"publish() takes a model class, not {model!r}.")
        declarations[model._meta.label_lower] = Published(
            model, None if columns is None else tuple(columns), tuple(exclude or ()), days
        )
        return model

    return declare if model is None else declare(model)


def _days(history: Any) -> float:
    wrong = ImproperlyConfigured(
        'publish(history=...) takes {"days": n}, with a number of days above 0 and up to '
        f"{MOST_HISTORY_DAYS:,}, not {history!r}."
    )
    if not isinstance(history, Mapping) or set(history) != {"days"}:
        raise wrong
    days = history["days"]
    if isinstance(days, bool) or not isinstance(days, int | float):
        raise wrong
    if not 0 < days <= MOST_HISTORY_DAYS:
        raise wrong
    return float(days)


def capture_internally(model: type[models.Model], ops: Collection[str] = shapes.EVERY_OP) -> None:
    """Capture a whole table for the dispatchers; its rows are delivered to no subscriber."""
    _internal[model] = frozenset(ops)


def internal_models() -> tuple[type[models.Model], ...]:
    """Every model that `capture_internally` was called for."""
    return tuple(_internal)


def declared() -> tuple[Published, ...]:
    """Every declaration, also of models that cannot be captured, in the order they were made."""
    return tuple(declarations.values())


def schemas() -> frozenset[str]:
    """The schemas that clients know published models by; that of most is always among them."""
    # Every socket keeps them.
    return interned(frozenset((shapes.SCHEMA, *(entry.schema for entry in declarations.values()))))


def published() -> tuple[Published, ...]:
    """Every declaration that can be captured."""
    return tuple(entry for entry in declared() if problem(entry) is None)


def problem(entry: Published) -> CannotCapture | None:
    """Why the declared model cannot be captured as declared, or None when it can."""
    try:
        _shown(entry)
    except CannotCapture as error:
        return error
    return None


def shape_of(model: type[models.Model]) -> tuple[ColumnInfo, ...]:
    """The columns that subscribers to a published model may see. Asks no database.

    Raises LookupError for a model that is not published, CannotCapture for one that cannot be.
    """
    entry = _entry(model)
    return tuple(shapes.info(column) for column in _shown(entry))


def shown_now() -> Mapping[tuple[str, str], Shown]:
    """By schema and table, what subscribers may see of each published table, as this process
    declares it. The same object until a declaration changes. Asks no database."""
    return _shown_by_table(declared())


@functools.lru_cache(maxsize=8)
def _shown_by_table(entries: tuple[Published, ...]) -> Mapping[tuple[str, str], Shown]:
    found: dict[tuple[str, str], Shown] = {}
    for entry in entries:
        if problem(entry) is None:
            columns = frozenset(column.name for column in _shown(entry))
            # Of two models on one table the one that is declared first is captured.
            found.setdefault(
                (entry.schema, entry.table), Shown(columns, shapes.key_of(entry.model))
            )
    return found


def key_of(schema: str, table: str) -> tuple[str, ...]:
    """The columns of the primary key of a published table, which are always among those that
    subscribers may see. Empty for a table that is not published."""
    for entry in published():
        if (entry.schema, entry.table) == (schema, table):
            return shapes.key_of(entry.model)
    return ()


def published_columns(model: type[models.Model]) -> frozenset[str] | None:
    """The names of a model's published columns; None for a model that is not published, or cannot
    be. Asks no database."""
    try:
        return frozenset(column.name for column in shape_of(model))
    except (LookupError, CannotCapture):
        return None


def relation_for(model: type[models.Model], reads: Collection[str] | None = None) -> Relation:
    """The relation of a published model. `reads` are the names of columns that policies read
    and that are captured, hidden, even when not published; the policies are asked by default.

    Raises LookupError for a model that is not published, CannotCapture for one that cannot be.
    """
    if reads is None:
        from auth_rls.access import authority

        reads = authority.columns_read(model)
    entry = _entry(model)
    return shapes.capture(model, _shown(entry), reads).relation


def captures(
    watched: Iterable[tuple[type[models.Model], Collection[str]]],
    present: Callable[[str], Collection[str]],
) -> list[Capture]:
    """Every table to capture: published models, and the tables that decide access with the columns
    that decide (`watched`).

    `present` returns the columns of a table in the database; none for a missing table. Half-way
    through migrations a model may be ahead of its table, and a trigger that named a missing column
    would fail the user's writes.
    """
    reads: dict[type[models.Model], set[str]] = {}
    everything = ((model, [field.column for field in model._meta.fields]) for model in _internal)
    for model, names in (*watched, *everything):
        reads.setdefault(model._meta.concrete_model or model, set()).update(names)
    shown = {entry.model: _shown(entry) for entry in published()}
    # By table: of two models on one table the published one, declared first, is captured.
    found: dict[str, Capture] = {}
    for model in (*shown, *reads):
        table = model._meta.db_table
        try:
            capture = shapes.capture(model, shown.get(model), reads.get(model, ()), present(table))
        except CannotCapture:
            continue
        if capture.relation.columns:
            ops = _internal.get(model, shapes.EVERY_OP)
            found.setdefault(table, dataclasses.replace(capture, ops=ops))
    return list(found.values())


def _entry(model: type[models.Model]) -> Published:
    try:
        return declarations[model._meta.label_lower]
    except KeyError:
        raise LookupError(f"{model._meta.label} is not published") from None


# A model does not change once it is made, and this is called for every subscription.
@functools.lru_cache(maxsize=1024)
def _shown(entry: Published) -> tuple[Column, ...]:
    """The published columns, in table order. Raises CannotCapture."""
    model, options = entry.model, entry.model._meta
    for flag, what, hint in (
        (options.abstract, "abstract", "Publish the models that inherit from it."),
        (options.proxy, "a proxy", "Publish the model it stands for."),
        (options.swapped, "swapped out", "Publish the model that takes its place."),
    ):
        if flag:
            raise CannotCapture(
                "realtime.E001",
                f"{options.label} is published and has no table of its own: it is {what}.",
                hint,
            )
    table, unknown = shapes.columns(model)
    named = {
        name: field.column for field in options.local_concrete_fields for name in _names(field)
    }
    for name in (*(entry.columns or ()), *entry.exclude):
        if name not in named and name != "pk":
            raise _unknown(entry, name, sorted(named))
    key = shapes.key_of(model)
    if entry.columns is not None:
        kept = {named[name] for name in entry.columns if name != "pk"}
    else:
        kept = set(named.values()) - {named[name] for name in entry.exclude if name != "pk"}
    kept |= set(key)
    asked: set[str] = set()
    for name in entry.columns or ():
        asked |= set(key) if name == "pk" else {named[name]}
    secrets = [
        field.column
        for field in options.local_concrete_fields
        if field.column in kept - asked and is_secret(field)
    ]
    if secrets:
        raise _secret(entry, secrets)
    for name, error in unknown.items():
        if name in kept:
            raise shapes.unsupported(model, error)
    return tuple(column for column in table if column.name in kept)


def _secret(entry: Published, secrets: list[str]) -> CannotCapture:
    if set(secrets).isdisjoint(shapes.key_of(entry.model)):
        hint = f"Leave them out: exclude={[*entry.exclude, *secrets]!r}."
    else:
        hint = "The primary key is always published: leave the model unpublished."
    return CannotCapture(
        "realtime.E006",
        f"{entry.model._meta.label} is published with columns that seem to hold secrets, and does "
        f"not name them: {', '.join(secrets)}.",
        f"{hint} If they are to be shown to everybody who may see the row, name them: "
        f"columns=[..., {', '.join(map(repr, secrets))}].",
    )


def _names(field: models.Field[Any, Any]) -> tuple[str, str, str]:
    return field.column, field.name, field.attname


def _unknown(entry: Published, name: str, known: list[str]) -> CannotCapture:
    close = difflib.get_close_matches(name, known, n=1)
    inherited = {field.name for field in entry.model._meta.concrete_fields} - set(known)
    if name in inherited:
        hint = "That field is in the table of a parent model: publish the parent."
    elif close:
        hint = f"Did you mean {close[0]!r}?"
    else:
        hint = f"Its columns: {', '.join(known)}."
    given = "exclude" if name in entry.exclude else "columns"
    return CannotCapture(
        "realtime.E003",
        f"{entry.model._meta.label} is published with {given} naming {name!r}, "
        "which it does not have.",
        hint,
    )
