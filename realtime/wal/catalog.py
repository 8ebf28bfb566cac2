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

AMBIGUOUS = "ambiguous"
"""What `Catalog.kinds` says of a name that the connection takes for another table than is
captured."""


class State(enum.StrEnum):
    """How a trigger in the database compares with the wanted one."""

    INSTALLED = "installed"
    MISSING = "missing"
    STALE = "stale"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger, wanted or found. `create` are the statements that make the wanted trigger,
    `drop` those that remove the installed one."""

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
        """For each of these names (`db_table`) that exists in the database, what it is: "table",
        "view", "foreign table" or `AMBIGUOUS`."""
        ...

    def ahead(self, captures: Iterable[Capture]) -> list[tuple[str, str]]:
        """Foreign triggers that fire before ours, whatever we do, by table and name: what they
        write about a row is in the log before the change itself. Call `columns` for these tables
        first."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """A context in which `compare` and `apply` are called, one process at a time."""
        ...

    def compare(self, captures: Iterable[Capture]) -> list[Trigger]:
        """Every trigger that is wanted or installed, by table and name. Call `columns` for these
        tables first."""
        ...

    def marks(self) -> frozenset[object]:
        """Another value whenever a trigger of ours has come or gone. Takes much less time than
        `compare`."""
        ...

    def apply(self, changes: Iterable[Trigger]) -> None:
        """Make these triggers as wanted."""
        ...

    def remove(self) -> list[str]:
        """Drop every capture trigger. Returns their names."""
        ...
