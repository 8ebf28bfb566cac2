"""The columns of Django's models, for predicates, triggers and clients.

Owns the mapping from Django field types to kinds and PostgreSQL type names. It reads model classes
and never the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import TableSchema


class UnsupportedColumn(TypeError):
    """A field of a type that has no kind."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `names` are its names in a predicate: column name, field name and
    attname. `type` is PostgreSQL's name of its type, on every database. `scale` is the number of
    decimal places of a DECIMAL column, None for other kinds. `collated`: the column, or the one
    that it refers to, has its own collation."""

    name: str
    attname: str
    names: tuple[str, ...]
    kind: Kind
    type: str
    field: models.Field[Any, Any]
    nullable: bool
    scale: int | None = None
    collated: bool = False


# By Django's internal type, which subclasses of a field share.
_TYPES: dict[str, tuple[Kind, str]] = {
    "AutoField": (Kind.INT, "int4"),
    "BigAutoField": (Kind.INT, "int8"),
    "BigIntegerField": (Kind.INT, "int8"),
    "BinaryField": (Kind.BINARY, "bytea"),
    "BooleanField": (Kind.BOOL, "bool"),
    "CharField": (Kind.TEXT, "varchar"),
    "DateField": (Kind.DATE, "date"),
    "DateTimeField": (Kind.DATETIME, "timestamptz"),
    "DecimalField": (Kind.DECIMAL, "numeric"),
    "DurationField": (Kind.INTERVAL, "interval"),
    "FileField": (Kind.TEXT, "varchar"),
    "FilePathField": (Kind.TEXT, "varchar"),
    "FloatField": (Kind.FLOAT, "float8"),
    "GenericIPAddressField": (Kind.INET, "inet"),
    "IntegerField": (Kind.INT, "int4"),
    "JSONField": (Kind.JSON, "jsonb"),
    "PositiveBigIntegerField": (Kind.INT, "int8"),
    "PositiveIntegerField": (Kind.INT, "int4"),
    "PositiveSmallIntegerField": (Kind.INT, "int2"),
    "SlugField": (Kind.TEXT, "varchar"),
    "SmallAutoField": (Kind.INT, "int2"),
    "SmallIntegerField": (Kind.INT, "int2"),
    "TextField": (Kind.TEXT, "text"),
    "TimeField": (Kind.TIME, "time"),
    "UUIDField": (Kind.UUID, "uuid"),
}


def columns_of(model: type[models.Model]) -> dict[str, Column]:
    """The columns of the model's own table, by column name, in the order of its fields.

    A child in multi-table inheritance has only its own columns; its parent's are in another
    table. A column of an unknown type is left out, so no predicate can name it.
    """
    found = {}
    for field in _fields(model):
        try:
            column = column_of(field)
        except UnsupportedColumn:
            continue
        found[column.name] = column
    return found


def schema_of(model: type[models.Model]) -> TableSchema:
    """The names that a predicate on the model's rows may use: every column under each of its names,
    and the primary key as "pk". A name of two columns is left out.
    """
    owners: dict[str, set[Column]] = {}
    for column in columns_of(model).values():
        names = (*column.names, "pk") if column.field.primary_key else column.names
        for name in names:
            owners.setdefault(name, set()).add(column)
    columns = {
        name: (column.name, column.kind)
        for name, found in owners.items()
        if len(found) == 1
        for column in found
    }
    relations = {
        name: (field.related_model._meta.label, str(field.target_field.name))
        for name, found in owners.items()
        for field in _fields_of(found)
        if field.remote_field is not None and name in columns
    }
    return TableSchema(model._meta.label, columns, relations=relations)


def _fields_of(columns: Iterable[Column]) -> Iterator[Any]:
    """Their fields, without the stubs' type, which lacks the attributes of a relation."""
    return (column.field for column in columns)


def _fields(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    return list((model._meta.concrete_model or model)._meta.local_concrete_fields)


def column_of(field: models.Field[Any, Any]) -> Column:
    """The column of a concrete field. Raises UnsupportedColumn."""
    assert field.column is not None  # a concrete field has one
    source = value_field(field)
    try:
        kind, type_name = _TYPES[source.get_internal_type()]
    except KeyError:
        raise UnsupportedColumn(
            f"{field.model._meta.label}.{field.name} is a {type(source).__name__}, whose values "
            f"cannot be compared or sent; leave it out with exclude=[{field.name!r}]"
        ) from None
    return Column(
        name=field.column,
        attname=field.attname,
        names=tuple(dict.fromkeys((field.column, field.name, field.attname))),
        kind=kind,
        type=type_name,
        field=field,
        nullable=field.null or isinstance(field, models.GeneratedField),
        scale=source.decimal_places if isinstance(source, models.DecimalField) else None,
        collated=getattr(source, "db_collation", None) is not None,
    )


def value_field(field: Any) -> models.Field[Any, Any]:
    """The field that decides a column's type: the target of a relation, the output field of a
    generated field, else the field itself."""
    while True:
        if field.remote_field is not None:
            field = field.target_field
        elif isinstance(field, models.GeneratedField):
            field = field.output_field
        else:
            return field  # type: ignore[no-any-return]


def model_named(label: str) -> type[models.Model]:
    """The model named "app.Model". Raises LookupError, whose text says what would be right."""
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        raise LookupError(f'there is no model {label!r}; write it as "app.Model"') from None
    if model._meta.proxy:
        owner = concrete(model)._meta.label
        raise LookupError(f"{label} is a proxy without rows of its own; write {owner}")
    return model


def concrete(model: type[models.Model]) -> type[models.Model]:
    """The model whose table holds the rows: `model` itself, or the model it is a proxy of."""
    return model._meta.concrete_model or model
