"""The capture of a table: from a model and a list of columns to a relation.

Reads model classes, no database and no declarations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from auth_rls.sql.columns import Column, UnsupportedColumn, column_of
from realtime.wal.entry import ColumnInfo, Relation

# The schema of every table for clients, as in Supabase's PostgreSQL.
SCHEMA = "public"

# A part of every relation's id: entries written by another rendering have another relation.
RENDERING = 2

# The operations on a table.
EVERY_OP = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE"})

_encode = msgspec.json.Encoder().encode


class CannotCapture(ImproperlyConfigured):
    """A model whose rows cannot be captured as declared. `id` is the id of the system check."""

    def __init__(self, id: str, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.id = id
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Capture:
    """A table to capture. `scales`: decimal places by column; `whole`: no column is left out;
    `ops`: the operations that are captured."""

    model: type[models.Model]
    relation: Relation
    scales: dict[str, int]
    whole: bool
    ops: frozenset[str] = EVERY_OP


def capture(
    model: type[models.Model],
    shown: tuple[Column, ...] | None,
    reads: Collection[str],
    present: Collection[str] | None = None,
) -> Capture:
    """The capture of one table.

    `shown` are the published columns, None where the model is not published. `reads` names
    columns (by any of their names) that decide access: captured, and hidden unless shown.
    `present` are the columns of the table, None if it has all of the model; without its key a table
    is captured without columns. Raises CannotCapture.
    """
    table, unknown = columns(model)
    key = key_of(model)
    for name in key:
        if name in unknown:
            raise unsupported(model, unknown[name])
    wanted = {column.name for column in shown or ()} | {
        column.name for column in table if not set(reads).isdisjoint(column.names)
    }
    if present is not None and not set(key) <= set(present):
        wanted, key = set(), ()
    here = [column for column in table if present is None or column.name in present]
    taken = [column for column in here if column.name in wanted or column.name in key]
    visible = {column.name for column in shown or ()}
    schema, name = table_name_of(model)
    relation = Relation(
        id="",
        schema=schema,
        table=name,
        columns=tuple(info(column, hidden=column.name not in visible) for column in taken),
        key=key,
        published=shown is not None,
    )
    # Every entry has it, so it is short; there are at most thousands of relations.
    digest = hashlib.blake2b(_encode(relation), digest_size=8, salt=bytes([RENDERING]))
    return Capture(
        model=model,
        relation=msgspec.structs.replace(relation, id=digest.hexdigest()),
        scales={column.name: column.scale for column in taken if column.scale is not None},
        whole=len(taken) == len(here) and not unknown,
    )


def table_name_of(model: type[models.Model]) -> tuple[str, str]:
    """The schema and the table that clients know the model by.

    Django has no schemas; people write db_table = 'schema"."table', which it then quotes.
    """
    schema, dot, table = model._meta.db_table.strip('"').rpartition('"."')
    return (schema, table) if dot else (SCHEMA, table)


def label(schema: str, table: str) -> str:
    """The name of a table for people: with its schema unless that is the usual one."""
    return table if schema == SCHEMA else f"{schema}.{table}"


def info(column: Column, hidden: bool = False) -> ColumnInfo:
    """The column as a relation describes it."""
    # Without USE_TZ the zone of a stored moment is not known, so none is shown.
    naive = column.type == "timestamptz" and not settings.USE_TZ
    type_ = "timestamp" if naive else column.type
    return ColumnInfo(name=column.name, type=type_, kind=column.kind, hidden=hidden)


def key_of(model: type[models.Model]) -> tuple[str, ...]:
    """The columns of the primary key."""
    return tuple(field.column for field in model._meta.pk_fields)


def columns(
    model: type[models.Model],
) -> tuple[tuple[Column, ...], dict[str, UnsupportedColumn]]:
    """The columns of the table, and for each column of unknown type the error."""
    known: list[Column] = []
    unknown: dict[str, UnsupportedColumn] = {}
    for field in model._meta.local_concrete_fields:
        try:
            known.append(column_of(field))
        except UnsupportedColumn as error:
            unknown[field.column] = error
    return tuple(known), unknown


def unsupported(model: type[models.Model], error: UnsupportedColumn) -> CannotCapture:
    """The error for a model that cannot be captured because of a column of unknown type."""
    return CannotCapture(
        "realtime.E002",
        f"{model._meta.label} cannot be captured: {error}.",
        "Its writes go on as before, unseen by subscribers.",
    )
