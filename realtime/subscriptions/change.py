"""A change as Python code gets it: the columns that the stream shows, as Python values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from django.db import models

from auth_rls.predicates.kinds import Kind
from auth_rls.sql.columns import value_field
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions.change_payload import shown_columns

Row = Mapping[str, Any]
Model = type[models.Model]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_decimal = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One change, with the columns as the stream shows them: JSON values, by column name. The
    values of a DECIMAL column are `Decimal` where the change was read from the log.

    `type` is "INSERT", "UPDATE", "DELETE", or "TRUNCATE" for a table that was emptied at once (a
    client is told to read its rows again). `model` is the model class, `pk` the row's key as the
    model has it, a tuple for a composite one. `new` is None for a DELETE, `old` None for an INSERT;
    `old` is empty where the subject could not see the row before an UPDATE. `columns` are the
    columns that are shown.

    `seq` is the number in the log and `commit_timestamp` the time of the commit; of a change that
    is not committed `seq` is its number in the block, from 1, and `commit_timestamp` is None.
    `actor` is the writer by `realtime.actor`, if there is one and the subject may know it, and `tx`
    the receipt of the subject's own transaction. `snapshot`: the row was there before the
    subscription. `errors` name what was left out of the rows.
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
    tx: str | None = None
    snapshot: bool = False
    errors: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        name = self.table if self.model is None else self.model._meta.label
        row = self.new if self.new is not None else self.old
        return f"<{self.type} {name} {self.pk}{'' if row is None else f' {dict(row)}'}>"

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that are shown and whose values this UPDATE changed; all that are shown for
        another change, and where the old row is not."""
        if not self.old or self.new is None:
            return self.columns
        old, new = self.old, self.new
        return tuple(
            name
            for name in self.columns
            if name not in old or name not in new or not _same(old[name], new[name])
        )


def of_event(
    event: DatabaseEvent,
    model: Model,
    select: tuple[str, ...] | None = None,
    *,
    show_old: bool = True,
    op: str | None = None,
    snapshot: bool = False,
    actor: str | None = None,
    tx: str | None = None,
) -> Change:
    """The change that an event of this model's table is to a subscriber. The images are those of
    `realtime.subscriptions.change_payload.data`, whole also where a frame would leave some out.

    `select`, `op` and `snapshot` are as there. `actor` and `tx` are what the subscriber may know of
    the writer.
    """
    relation = event.relation
    shown = shown_columns(relation, select)
    op = op or event.op
    old = new = None
    if event.new is not None and op != "DELETE":
        new = _row(event.new, relation.kinds, shown)
    if event.old is not None and op != "INSERT":
        if op != event.op:
            old = _row(event.old, relation.kinds, relation.key)
        else:
            old = _row(event.old, relation.kinds, shown) if show_old or op == "DELETE" else {}
    return Change(
        type=op,
        schema=relation.schema,
        table=relation.table,
        model=model,
        pk=key_of(model, {**(old or {}), **(new or {})}),
        old=old,
        new=new,
        columns=shown,
        seq=event.seq,
        commit_timestamp=event.commit_timestamp,
        actor=actor,
        tx=tx,
        snapshot=snapshot,
    )


def key_of(model: Model | None, row: Row) -> Any:
    """The key of a row as the model has it; None for no model or no such columns, a tuple where the
    key is composite."""
    if model is None:
        return None
    parts = [
        value_field(key).to_python(row[str(key.column)])
        for key in model._meta.pk_fields
        if key.column in row
    ]
    if not parts:
        return None
    return parts[0] if len(model._meta.pk_fields) == 1 else tuple(parts)


def _row(image: RowImage, kinds: Mapping[str, Kind], shown: Collection[str]) -> dict[str, Any]:
    if all(kinds[name] is not Kind.DECIMAL for name in shown):
        values = _decode(image.raw)
        return {name: values[name] for name in shown if name in values}
    cells = image.cells()
    return {
        name: (_decode_decimal if kinds[name] is Kind.DECIMAL else _decode)(cells[name])
        for name in shown
        if name in cells
    }


def _same(old: Any, new: Any) -> bool:
    # As JSON, where 1 is neither 1.0 nor true.
    return bool(_encode(old) == _encode(new))
