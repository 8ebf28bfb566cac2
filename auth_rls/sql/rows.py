"""Values of a model instance or of a query, as predicates compare them.

Owns the conversion of the Python values that Django gives to the canonical values of kinds.py. The
stream converts captured JSON instead; both must give the same value.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from auth_rls.predicates.kinds import OPAQUE, Kind, from_row
from auth_rls.sql.columns import Column, columns_of


def row_of(instance: models.Model) -> dict[str, object]:
    """The row that saving `instance` would write: column name -> canonical value.

    A column is left out, so that every comparison with it is unknown, if only the database knows
    its value (an expression, a database default) or if the database would refuse the value.
    """
    row: dict[str, object] = {}
    stored: Mapping[str, Any] = instance.__dict__
    for name, column in columns_of(type(instance)).items():
        if column.attname not in stored or isinstance(column.field, models.GeneratedField):
            continue
        try:
            row[name] = canonical(column, stored[column.attname])
        except (ValidationError, ValueError, TypeError, ArithmeticError):
            continue
    return row


def canonical(column: Column, value: Any) -> object:
    """`value`, a Python value of the column's field, as predicates compare it; NULL is None.

    Raises ValueError, TypeError, ArithmeticError or ValidationError for what cannot be stored
    in the column.
    """
    if hasattr(value, "resolve_expression"):
        raise ValueError(f"{column.name}: the database computes this value")
    field: Any = column.field
    while field.remote_field is not None or isinstance(field, models.GeneratedField):
        field = field.target_field if field.remote_field is not None else field.output_field
    if column.kind in OPAQUE:
        return value
    value = field.to_python(value)
    if value is None:
        return None
    match column.kind:
        case Kind.BOOL | Kind.INT | Kind.FLOAT:
            return from_row(column.kind, value)
        case Kind.TEXT | Kind.UUID | Kind.INET:
            return from_row(column.kind, str(value))
        case Kind.DECIMAL if column.scale is not None:
            return _rounded(value, column.scale)
        case Kind.DATETIME:
            return _utc(value)
        case Kind.TIME:
            return value.replace(tzinfo=None)
    return value


def _rounded(value: Decimal, scale: int) -> Decimal:
    with decimal.localcontext(prec=max(len(value.as_tuple().digits) + scale + 1, 28)):
        return value.quantize(Decimal(1).scaleb(-scale))


def _utc(value: datetime) -> datetime:
    if timezone.is_aware(value):
        return value.astimezone(UTC)
    if settings.USE_TZ:
        return timezone.make_aware(value, timezone.get_default_timezone()).astimezone(UTC)
    return value.replace(tzinfo=UTC)
