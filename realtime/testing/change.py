"""A change as a test sees it: the `data` object of a frame, read into Python values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import models

from auth_rls.sql.columns import value_field
from realtime.testing.preconditions import model_of

Row = Mapping[str, Any]
Model = type[models.Model]


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One change, with the columns as the stream shows them: JSON values, by column name.

    `type` is "INSERT", "UPDATE", "DELETE", or "TRUNCATE" for a table that was emptied at once (a
    client is told to read its rows again). `model` is the model class, `pk` the row's key as the
    model has it, a tuple for a composite one. `new` is None for a DELETE, `old` None for an INSERT;
    `old` is empty where the subject could not see the row before an UPDATE. `columns` are the
    columns that are shown.

    `seq` is the number in the log and `commit_timestamp` the time of the commit; of a change that
    is not committed `seq` is its number in the block, from 1, and `commit_timestamp` is None.
    `actor` is the writer by `realtime.actor`, if there is one. `snapshot`: the row was there before
    the subscription. `errors` name what was left out of the rows.
    """

    type: str
    schema: str
    table: str
    model: Model | None
    pk: Any
    old: Row | None
    new: Row | None
    columns: tuple[str, ...]
    seq: int
    commit_timestamp: str | None = None
    actor: str | None = None
    snapshot: bool = False
    errors: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        name = self.table if self.model is None else self.model._meta.label
        row = self.new if self.new is not None else self.old
        return f"<{self.type} {name} {self.pk}{'' if row is None else f' {dict(row)}'}>"


def read(data: Mapping[str, Any], **more: Any) -> Change:
    """The change that the decoded `data` object of a frame tells of, with what is known beside."""
    model = model_of(data["schema"], data["table"])
    old, new = data.get("old_record"), data.get("record")
    return Change(
        type=data["type"],
        schema=data["schema"],
        table=data["table"],
        model=model,
        pk=_key(model, {**(old or {}), **(new or {})}),
        old=old,
        new=new,
        columns=tuple(column["name"] for column in data["columns"]),
        errors=tuple(data.get("errors") or ()),
        snapshot=bool(data.get("snapshot")),
        **{"seq": data["seq"], "commit_timestamp": data["commit_timestamp"], **more},
    )


def emptied(schema: str, table: str, **more: Any) -> Change:
    """A TRUNCATE."""
    return Change("TRUNCATE", schema, table, model_of(schema, table), None, None, None, (), **more)


def _key(model: Model | None, row: Row) -> Any:
    if model is None:
        return None
    parts = [
        value_field(key).to_python(row[str(key.column)])
        for key in model._meta.pk_fields
        if key.column in row
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)
