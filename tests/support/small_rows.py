"""A relation of three columns, and its rows, for tests of what is found and sent for a change."""

from __future__ import annotations

import json
from typing import Any

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import RowImage
from realtime.wal.entry import ColumnInfo, Relation

KINDS = {"id": Kind.INT, "owner": Kind.INT, "title": Kind.TEXT}
RELATION = Relation(
    id="r1",
    schema="public",
    table="t",
    columns=tuple(ColumnInfo(name, kind.value, kind) for name, kind in KINDS.items()),
    key=("id",),
)


def row(**values: Any) -> RowImage:
    return RowImage(json.dumps(values).encode(), KINDS)
