"""Functions by which other programs' SQL broadcasts, as one interface: see `Vendor.sql_functions`.

They are optional: a program may as well insert rows into `realtime_message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from realtime.wal.catalog import State


class NoSqlFunctions(RuntimeError):
    """The database has no such functions."""


class NotOurs(RuntimeError):
    """A function or schema of another owner has the name of one of Rowcast's."""


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """One function that is wanted, and how it stands."""

    signature: str
    state: State


class SqlFunctions(Protocol):
    """The functions in one database. Used in a database thread, for one piece of work; raises what
    the database raises."""

    def compare(self) -> list[SqlFunction]:
        """Each function, and how it stands. Raises NotOurs."""
        ...

    def install(self) -> list[SqlFunction]:
        """Make each what it should be, in one transaction; those that were not. Raises NotOurs."""
        ...

    def uninstall(self) -> list[str]:
        """Drop those of ours, in one transaction; the signatures of what was dropped."""
        ...

    def callers(self) -> list[str]:
        """The database's other functions that seem to call them."""
        ...
