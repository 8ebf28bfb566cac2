"""Values of a model instance or of a query, as predicates compare them.

Owns the conversion of the Python values that Django gives to the canonical values of kinds.py. The
stream converts captured JSON instead; both must give the same value.
"""

from __future__ import annotations

import decimal
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import File
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields.proxy import OrderWrt
from django.utils import timezone

from auth_rls.predicates.kinds import OPAQUE, Kind, from_image, from_row
from auth_rls.sql.columns import Column, columns_of, value_field
from auth_rls.sql.primary import primary
from auth_rls.sql.stored_types import fit_of


def row_of(
    instance: models.Model,
    model: type[models.Model] | None = None,
    *,
    stored: bool = False,
) -> dict[str, object]:
    """The row that saving `instance` would write: column name -> canonical value. `model` is an
    ancestor of its model in multi-table inheritance, for the row that goes into that table.

    A column is left out, so that every comparison with it is unknown, if its value is known only
    when it has been stored (an expression, a database default, a new key, the current time, the
    final name of a file) or if the database would refuse the value. With `stored` the instance
    has just been read, and stands for the row as it is.
    """
    row: dict[str, object] = {}
    adding = instance._state.adding
    model = model or type(instance)
    for name, column in columns_of(model).items():
        field: Any = column.field
        if field.attname not in instance.__dict__:
            continue
        if not stored and _set_when_saved(field, instance, adding):
            continue
        try:
            value = canonical(column, _value(field, instance))
        except (ValidationError, ValueError, TypeError, ArithmeticError, AttributeError):
            continue
        if isinstance(value, str) and fit_of(model, name).padded:
            value = value.rstrip(" ")
        row[name] = value
    return row


def _set_when_saved(field: Any, instance: models.Model, adding: bool) -> bool:
    """Whether saving the instance gives the field a value that it does not hold yet."""
    value = instance.__dict__[field.attname]
    return (
        isinstance(field, models.GeneratedField)
        or getattr(field, "auto_now", False)
        or (adding and getattr(field, "auto_now_add", False))
        or (adding and isinstance(field, OrderWrt))
        or (adding and field.primary_key and value is None)
        # A file that is not in its storage yet may get another name there.
        or (isinstance(value, File) and not getattr(value, "_committed", False))
        or not _is_djangos(field, "pre_save")
    )


def _value(field: Any, instance: models.Model) -> Any:
    """The value that will be saved: a related object that was set before it had a key gives its
    key now."""
    value = instance.__dict__[field.attname]
    if field.remote_field is not None and value in field.empty_values:
        related = field.get_cached_value(instance, default=None)
        if related is not None:
            return getattr(related, field.target_field.attname)
    return value


def canonical(column: Column, value: Any) -> object:
    """`value`, a Python value of the column's field, as predicates compare it; NULL is None.

    Predicates compare what is stored: of a field that converts (`get_prep_value`), the value that
    it stores.

    Raises ValueError, TypeError, ArithmeticError or ValidationError for what cannot be stored
    in the column, and for a field of which only the database knows what it stores.
    """
    if hasattr(value, "resolve_expression"):
        raise ValueError(f"{column.name}: the database computes this value")
    field: Any = value_field(column.field)
    if column.kind in OPAQUE:
        return value
    if not converts(column.field):
        # As SQLite gives what is not of its column's kind.
        if isinstance(value, bytes | memoryview):
            if column.kind is not Kind.TEXT:
                raise ValueError(f"{column.name}: bytes are no {column.kind}")
            return bytes(value).hex()
        if column.kind is Kind.INT and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{column.name}: {value!r} is not whole")
    return _of_kind(column, stored_value(field, value))


def canonical_in(column: Column, value: Any, connection: BaseDatabaseWrapper) -> object:
    """As `canonical`, of a column in this database: of a field that converts for a database in ways
    of its own, the value that it stores there. Raises what `canonical` raises, and what the field
    does."""
    field: Any = value_field(column.field)
    if column.kind in OPAQUE or all(_is_djangos(field, hook) for hook in _IN_DATABASE):
        return canonical(column, value)
    stored = field.get_db_prep_save(value, connection)
    plain: Any = getattr(models, field.get_internal_type())
    return _of_kind(column, plain.to_python(_plain_field(plain, field), stored))


def _of_kind(column: Column, value: Any) -> object:
    if value is None:
        return None
    match column.kind:
        case Kind.BOOL | Kind.INT | Kind.FLOAT:
            return from_row(column.kind, value)
        case Kind.TEXT:
            # As of the stream: SQLite stores a text with NUL characters, and no door compares it.
            return from_image(column.kind, str(value))
        case Kind.UUID | Kind.INET:
            return from_row(column.kind, str(value))
        case Kind.DECIMAL if column.scale is not None:
            return _rounded(value, column.scale)
        case Kind.DATETIME:
            return _utc(value)
        case Kind.TIME:
            return value.replace(tzinfo=None)
    return value


def converts(field: models.Field[Any, Any]) -> bool:
    """Whether a field's values in Python are others than those in its column: it overrides how
    Django converts them."""
    source = value_field(field)
    return not all(_is_djangos(source, hook) for hook in ("get_prep_value", *_IN_DATABASE))


def loaded(field: models.Field[Any, Any], value: Any) -> Any:
    """The value that an instance has in a field whose column holds `value`, as predicates compare
    it. Raises what the field's own code raises."""
    source: Any = value_field(field)
    convert = getattr(source, "from_db_value", None)
    if value is None or convert is None:
        return source.to_python(value)
    if isinstance(source, models.UUIDField):
        value = UUID(value)  # as the databases' own converters give it to the field
    return convert(value, None, connections[primary(field.model)])


def stored_value(field: models.Field[Any, Any], value: Any) -> Any:
    """What the field stores for a value, as Python has values of the column's type.

    Raises ValueError for a field that converts for a database in ways of its own, beside what
    Django's fields raise for a value that is none of theirs.
    """
    if not all(_is_djangos(field, hook) for hook in _IN_DATABASE):
        raise ValueError(f"{field.name}: only the database knows what is stored")
    own = not _is_djangos(field, "get_prep_value")
    try:
        value = field.to_python(value)
    except ValidationError:
        # What the field makes of a value of its own, it need not take from a form.
        if not own:
            raise
    if value is None or not own:
        return value
    stored = field.get_prep_value(value)
    if hasattr(stored, "resolve_expression"):
        raise ValueError(f"{field.name}: the database computes this value")
    # As the field of Django's would read it that has such a column.
    plain: Any = getattr(models, field.get_internal_type())
    return plain.to_python(_plain_field(plain, field), stored)


# A field that overrides one of these can store anything.
_IN_DATABASE: Final = ("get_db_prep_value", "get_db_prep_save")


def _is_djangos(field: Any, hook: str) -> bool:
    """Whether a field's class leaves a hook as Django has it."""
    kind: Any = type(field)
    return _unchanged(kind, hook)


@cache
def _unchanged(kind: Any, hook: str) -> bool:
    return str(getattr(kind, hook).__module__).partition(".")[0] == "django"


def _plain_field(plain: Any, field: models.Field[Any, Any]) -> Any:
    """A field of Django's with the options that decide how it reads values."""
    if plain is models.DecimalField:
        source: Any = field
        return plain(max_digits=source.max_digits, decimal_places=source.decimal_places)
    return plain()


def _rounded(value: Decimal, scale: int) -> Decimal:
    with decimal.localcontext(prec=max(len(value.as_tuple().digits) + scale + 1, 28)):
        return value.quantize(Decimal(1).scaleb(-scale))


def _utc(value: datetime) -> datetime:
    if timezone.is_aware(value):
        return value.astimezone(UTC)
    if settings.USE_TZ:
        return timezone.make_aware(value, timezone.get_default_timezone()).astimezone(UTC)
    return value.replace(tzinfo=UTC)
