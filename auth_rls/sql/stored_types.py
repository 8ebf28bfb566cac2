"""The types that columns have in their database, where those are not their fields'.

Tables that Django did not make, and tables that were altered by hand, may have an enum, a domain or
money where the model says CharField or DecimalField. What may not be compared then is refused in
policies and filters, by the schema that this module gives.

Owns what is known of each database. It is read once for a process, and again after migrations; a
server reads it again now and then (`look` with `seconds`). `look` runs in a database thread; the
other functions make no query.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from django.apps import apps
from django.db import DatabaseError, NotSupportedError, connections, models, transaction

from auth_rls import forks
from auth_rls.predicates.fit import EXACT, Fit
from auth_rls.predicates.parse import TableSchema
from auth_rls.sql import columns
from auth_rls.sql.columns import UnsupportedColumn, columns_of, concrete
from auth_rls.sql.dialects.base import StoredType
from auth_rls.sql.dialects.registry import dialect_of
from auth_rls.sql.primary import primary

_lock = threading.Lock()
# By alias: by table and column, the columns that are not as their fields say; when that was read,
# in monotonic seconds, and the list of models it was read for.
_known: dict[str, Mapping[tuple[str, str], Fit]] = {}
_read: dict[str, tuple[float, object]] = {}


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


forks.in_child(_renew_lock)


def look(aliases: Iterable[str], seconds: float | None = None) -> None:
    """Read the types of each database that were not read yet, or not within so many `seconds`.
    What cannot be read stays as it was known."""
    installed = apps.get_models(include_auto_created=True)
    for alias in {*aliases}:
        with _lock:
            at, known_for = _read.get(alias, (0.0, None))
            now = time.monotonic()
            # Django gives the same list until a model is added.
            if known_for is installed and (seconds is None or now - at < seconds):
                continue
            first = alias not in _known
            if not first:
                # Meanwhile others go by what is known. While nothing is, they read it, too.
                _read[alias] = now, installed
        try:
            found = _fits(alias, installed)
        except DatabaseError:
            with _lock:
                _read.pop(alias, None)
            continue
        with _lock:
            _known[alias] = found
            if first:
                _read[alias] = now, installed


def forget(**kwargs: Any) -> None:
    """Tables may have changed. Also a receiver of `post_migrate`."""
    with _lock:
        _read.clear()


def fit_of(model: type[models.Model], column: str) -> Fit:
    """How the type of a column suits its field's kind, as far as is known."""
    found = _known.get(primary(model))
    return EXACT if not found else found.get((concrete(model)._meta.db_table, column), EXACT)


def schema_of(model: type[models.Model]) -> TableSchema:
    """What a predicate may say about the model's rows, given the types that its columns have."""
    schema = columns.schema_of(model)
    owned = {name: (column, fit_of(model, column)) for name, (column, _) in schema.columns.items()}
    refused = {name: fit.problem for name, (_, fit) in owned.items() if fit.problem}
    return replace(
        schema,
        refused=refused | _without_kind(model),
        ignoring_case=frozenset(column for column, fit in owned.values() if fit.ignores_case),
    )


def _without_kind(model: type[models.Model]) -> dict[str, str]:
    """By each name of a column of a type that has no kind, why it may not be compared."""
    found: dict[str, str] = {}
    for field in concrete(model)._meta.local_concrete_fields:
        try:
            columns.column_of(field)
        except UnsupportedColumn:
            what = type(columns.value_field(field)).__name__
            problem = (
                f"{field.name} is a {what}, whose values are not compared; write the policy or "
                "filter with other columns"
            )
            found |= dict.fromkeys((str(field.column), field.name, field.attname), problem)
    return found


def _fits(alias: str, installed: Iterable[type[models.Model]]) -> dict[tuple[str, str], Fit]:
    connection = connections[alias]
    held = [
        model
        for model in installed
        if not (model._meta.proxy or model._meta.swapped) and primary(model) == alias
    ]
    tables = {
        model._meta.db_table: connection.ops.quote_name(model._meta.db_table) for model in held
    }
    try:
        dialect = dialect_of(connection)
    except NotSupportedError:
        return {}
    query = dialect.stored_types(tables)
    if query is None:
        return {}
    # A savepoint: a failed query must not break the caller's transaction.
    inside = transaction.atomic(using=alias) if connection.in_atomic_block else nullcontext()
    with inside, connection.cursor() as cursor:
        cursor.execute(*query)
        stored = {(table, column): StoredType(*rest) for table, column, *rest in cursor}
    found = {}
    for model in held:
        table = model._meta.db_table
        for name, column in columns_of(model).items():
            type_ = stored.get((table, name))
            fit = EXACT if type_ is None else dialect.fit_of(column, type_)
            if fit != EXACT:
                found[table, name] = fit
    return found
