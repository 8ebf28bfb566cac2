"""Small relations and their rows, for tests of what is found and sent for a change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import RowImage
from realtime.wal.entry import ColumnInfo, Relation


def relation_of(kinds: Mapping[str, Kind]) -> Relation:
    columns = tuple(ColumnInfo(name, kind.value, kind) for name, kind in kinds.items())
    return Relation(id="r1", schema="public", table="t", columns=columns, key=("id",))


KINDS = {"id": Kind.INT, "owner": Kind.INT, "title": Kind.TEXT}
RELATION = relation_of(KINDS)


def row(**values: Any) -> RowImage:
    return RowImage(json.dumps(values).encode(), KINDS)
