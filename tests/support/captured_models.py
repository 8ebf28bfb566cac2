"""What the capture tests share: reading the log, and models that live for one test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any

import msgspec
from django.db import connection, models
from django.utils.duration import duration_iso_string

from auth_rls.predicates.kinds import Kind, from_row
from realtime.models import WalEntry, WalRelation
from realtime.wal import published, triggers
from realtime.wal.entry import Relation

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the log with its images decoded."""

    op: str
    key: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    relation_id: str


def changes(table: str | type[models.Model]) -> list[Change]:
    """The log of one table, oldest first."""
    name = table if isinstance(table, str) else table._meta.db_table
    return [
        Change(
            entry.op,
            entry.pk_text,
            None if entry.old is None else _decode(entry.old),
            None if entry.new is None else _decode(entry.new),
            entry.relation_id,
        )
        for entry in WalEntry.objects.filter(table_name=name).order_by("id")
    ]


def texts(table: str | type[models.Model]) -> list[tuple[str, str | None, str | None]]:
    """The log of one table, oldest first: operation and images as they were written."""
    name = table if isinstance(table, str) else table._meta.db_table
    entries = WalEntry.objects.filter(table_name=name).order_by("id")
    return list(entries.values_list("op", "old", "new"))


def cells(image: str) -> dict[str, str]:
    """An image's values as they were written, byte by byte."""
    raw = msgspec.json.decode(image, type=dict[str, msgspec.Raw])
    return {name: bytes(value).decode() for name, value in raw.items()}


def written(kind: Kind, value: Any, scale: int | None = None) -> str:
    """How the log writes a value, whatever the database."""
    if value is None:
        return "null"
    if kind is Kind.FLOAT:
        return _float(value)
    if kind is Kind.DECIMAL:
        return f"{value:.{scale or 0}f}"
    if kind is Kind.TIME:
        return f'"{_trimmed(value.isoformat())}"'
    if kind is Kind.DATETIME:
        return f'"{_trimmed(value.astimezone(UTC).replace(tzinfo=None).isoformat())}+00:00"'
    if kind is Kind.INTERVAL:
        return f'"{duration_iso_string(value)}"'
    if kind is Kind.BINARY:
        return f'"{bytes(value).hex()}"'
    if kind in (Kind.BOOL, Kind.INT):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _float(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return '"Infinity"' if value > 0 else '"-Infinity"'
    number = Decimal(repr(value + 0.0)).normalize()
    power = number.adjusted()
    if not value or -4 <= power < 15:
        return f"{number:f}"
    digits = "".join(map(str, number.as_tuple().digits))
    point = "." if len(digits) > 1 else ""
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[0]}{point}{digits[1:]}e{'-' if power < 0 else '+'}{abs(power):02}"


def ops(table: str | type[models.Model]) -> list[str]:
    return [change.op for change in changes(table)]


def forget() -> None:
    """Empty the log."""
    WalEntry.objects.all().delete()


def recorded(relation_id: str) -> Relation:
    definition = WalRelation.objects.get(id=relation_id).definition
    return msgspec.json.decode(definition, type=Relation)


def canonical(image: dict[str, Any], relation: Relation) -> dict[str, object]:
    """An image with its values as predicates compare them."""
    return {column.name: from_row(column.kind, image[column.name]) for column in relation.columns}


def withdraw(model: type[models.Model]) -> None:
    """Take the declaration of a model back."""
    published.declarations.pop(model._meta.label_lower, None)


def states(table: str) -> set[str]:
    """The states of the triggers on one table; empty when there are none."""
    return {str(trigger.state) for trigger in triggers.status() if trigger.table == table}


@contextmanager
def tables_of(*scratch: type[models.Model]) -> Iterator[None]:
    """The tables of models that only this test knows, captured as declared. For tests with
    transaction=True: SQLite changes no schema inside a transaction."""
    with connection.schema_editor() as editor:
        for model in scratch:
            editor.create_model(model)
    try:
        triggers.reconcile()
        yield
    finally:
        for model in scratch:
            withdraw(model)
        triggers.reconcile()
        with connection.schema_editor() as editor:
            for model in reversed(scratch):
                editor.delete_model(model)
