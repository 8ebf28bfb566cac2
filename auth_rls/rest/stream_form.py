"""Values of a row as the stream sends them, for serializers that show rows in its form.

A page that reads rows by REST and follows them by the stream then has one form of them. Owns the
form; that both give the same is held by a test over every kind of column.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, time
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import File
from django.db import connections, models
from django.utils.duration import duration_iso_string

from auth_rls.predicates.kinds import Kind
from auth_rls.sql.columns import Column, columns_of, value_field
from auth_rls.sql.inheritance import ancestors
from auth_rls.sql.primary import primary
from auth_rls.sql.rows import canonical_in

_NO_VALUE = (ValidationError, ValueError, TypeError, ArithmeticError, AttributeError)


def column_of_source(model: type[models.Model], source: str) -> Column | None:
    """The column that a serializer's source names, by a field's name or its attribute's: of the
    model's table, or of a parent's in multi-table inheritance. None where it names no column."""
    for table in (model, *ancestors(model)):
        for column in columns_of(table).values():
            if source in (column.field.name, column.attname):
                return column
    return None


def parent_keys(model: type[models.Model]) -> list[Column]:
    """The columns by which a child in multi-table inheritance is a row of its parents. Model
    serializers have no field for them."""
    return [
        column
        for table in (model, *ancestors(model))
        for column in columns_of(table).values()
        if getattr(column.field.remote_field, "parent_link", False)
    ]


def cell(column: Column, instance: models.Model) -> Any:
    """The column's value as JSON, as the stream has it. Raises ValueError for a value that the
    column cannot hold."""
    value = getattr(instance, column.attname)
    if isinstance(value, File):
        value = value.name
    if value is None:
        return None
    try:
        return _written(column, _stored(column, instance, value))
    except _NO_VALUE as error:
        raise ValueError(f"{column.name}: {error}") from None


def _stored(column: Column, instance: models.Model, value: Any) -> Any:
    """What the column holds, as Python has such values."""
    if isinstance(value, float) and math.isnan(value):
        return value
    if column.kind is Kind.JSON:
        field: Any = value_field(column.field)
        return json.loads(json.dumps(value, cls=getattr(field, "encoder", None)))
    if column.kind is Kind.BINARY:
        return bytes(value)
    connection = connections[primary(type(instance), instance)]
    return canonical_in(column, value, connection)


def _written(column: Column, value: Any) -> Any:
    match column.kind:
        case Kind.FLOAT if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Kind.DECIMAL:
            return _number(value)
        case Kind.DATE:
            return value.isoformat()
        case Kind.TIME:
            return _clock(value)
        case Kind.DATETIME:
            # Without USE_TZ there is no telling which zone a stored moment is in.
            return _clock(value.replace(tzinfo=None)) + ("+00:00" if settings.USE_TZ else "")
        case Kind.INTERVAL:
            return duration_iso_string(value)
        case Kind.BINARY:
            return value.hex()
    return value


def _clock(value: time | datetime) -> str:
    text = value.isoformat()
    return text.rstrip("0").rstrip(".") if "." in text else text


def _number(value: Decimal) -> int | float:
    """A JSON number. Beyond the digits of a double no JSON renderer of Python writes them."""
    return int(value) if value == value.to_integral_value() else float(value)
