"""A change as a test sees it, read from the `data` object of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realtime.subscriptions.change import Change, key_of
from realtime.testing.preconditions import model_of


def read(data: Mapping[str, Any], **more: Any) -> Change:
    """The change that the decoded `data` object of a frame tells of, with what is known beside."""
    model = model_of(data["schema"], data["table"])
    old, new = data.get("old_record"), data.get("record")
    return Change(
        type=data["type"],
        schema=data["schema"],
        table=data["table"],
        model=model,
        pk=key_of(model, {**(old or {}), **(new or {})}),
        old=old,
        new=new,
        columns=tuple(column["name"] for column in data["columns"]),
        errors=tuple(data.get("errors") or ()),
        snapshot=bool(data.get("snapshot")),
        tx=data.get("tx"),
        **{"seq": data["seq"], "commit_timestamp": data["commit_timestamp"], **more},
    )


def emptied(schema: str, table: str, **more: Any) -> Change:
    """A TRUNCATE."""
    return Change("TRUNCATE", schema, table, model_of(schema, table), None, None, None, (), **more)
