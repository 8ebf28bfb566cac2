"""The capture triggers of a database: the interface to those installed, compared with those wanted.

Each vendor has a catalog. Which triggers are wanted is decided by `realtime.wal.triggers`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from realtime.wal.capture import Capture


class State(enum.StrEnum):
    """How a trigger in the database compares to what is wanted."""

    INSTALLED = "installed"
    MISSING = "missing"
    STALE = "stale"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger, wanted or found. `create` are the statements that make it what it should be,
    `drop` those that remove what is there."""

    name: str
    table: str
    state: State
    create: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Catalog(Protocol):
    """The triggers of one database. Used in a database thread, for one piece of work."""

    def columns(self, tables: Collection[str]) -> Mapping[str, Collection[str]]:
        """The columns of those of these tables (by `db_table`) that the database has."""
        ...

    def kinds(self, tables: Collection[str]) -> Mapping[str, str]:
        """What these names (`db_table`) stand for in the database: "table", "view", "foreign
        table"; without those that stand for nothing."""
        ...

    def ahead(self, captures: Iterable[Capture]) -> list[tuple[str, str]]:
        """Triggers of others that fire before ours and cannot be made to fire after them, by table
        and name: what they write about a row stands in the log before the change itself. `columns`
        has been asked for the tables of the captures."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Around comparing and applying."""
        ...

    def compare(self, captures: Iterable[Capture]) -> list[Trigger]:
        """Every trigger that is wanted or there, by table and name. `columns` has been asked for
        the tables of the captures."""
        ...

    def apply(self, changes: Iterable[Trigger]) -> None:
        """Make these what they should be."""
        ...

    def remove(self) -> list[str]:
        """Drop every capture trigger; what was dropped."""
        ...
