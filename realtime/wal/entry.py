"""Entries of the WAL table: a captured change, and the captured shape of its table.

Pure values. The field names are stored as JSON in `realtime_wal_relation` and sent on the bus, so
they must not change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from auth_rls.predicates.kinds import Kind


class ColumnInfo(msgspec.Struct, frozen=True, array_like=True):
    """One captured column. `type` is the PostgreSQL type name that clients see.

    A hidden column is captured because a policy reads it; it appears in no frame.
    """

    name: str
    type: str
    kind: Kind
    hidden: bool = False


class Relation(msgspec.Struct, frozen=True, dict=True):
    """The captured shape of a table. `published` False: captured for policies only, and
    delivered to no subscriber."""

    id: str
    schema: str
    table: str
    columns: tuple[ColumnInfo, ...]
    key: tuple[str, ...]
    published: bool = True

    @property
    def visible(self) -> tuple[ColumnInfo, ...]:
        return tuple(column for column in self.columns if not column.hidden)

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """The kind of each column. Made once: every event of the table needs it."""
        return {column.name: column.kind for column in self.columns}


class Shown(NamedTuple):
    """What subscribers may see of a table: the names of columns, and those of its key."""

    columns: Collection[str]
    key: tuple[str, ...]


NOTHING_SHOWN = Shown((), ())
"""Of a table that is not published."""


def narrowed(relation: Relation, shown: Shown) -> Relation:
    """The relation, with no column visible that is not shown now, whatever was published when its
    entries were captured.

    It is not published if nothing is shown. It has no key if its own is not the one that is shown:
    clients cannot tell then which row an entry is about. A relation that was captured for policies
    alone shows nothing as it is.
    """
    if not relation.published:
        return relation
    columns = tuple(
        column
        if column.hidden or column.name in shown.columns
        else msgspec.structs.replace(column, hidden=True)
        for column in relation.columns
    )
    published = bool(shown.columns)
    key = relation.key if relation.key == shown.key else ()
    if (columns, published, key) == (relation.columns, True, relation.key):
        return relation
    return msgspec.structs.replace(relation, columns=columns, published=published, key=key)


class WalRow(msgspec.Struct, frozen=True, array_like=True):
    """A numbered WAL entry as read from the table; also its form on the bus."""

    seq: int
    commit_us: int
    relation_id: str
    op: str
    old: bytes | None
    new: bytes | None
    #: Who wrote, by `realtime.actor`. Older processes send no such field.
    actor: str | None = None
    #: The receipt of the actor's transaction. Older processes send no such field.
    tx: str | None = None

    @property
    def size(self) -> int:
        """Bytes of both images."""
        old = 0 if self.old is None else len(self.old)
        return old if self.new is None else old + len(self.new)
