"""What the log asks of a database, as one interface with one implementation per vendor.

Nothing outside the implementations asks which vendor a connection is of. A third vendor is a module
with an object `vendor` that has what `Vendor` says, named in `_IMPLEMENTATIONS`; the page "A third
database" in docs/architecture.md goes through it part by part.

The objects hold no state. Each method is given the connection it works on and runs in a database
thread.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from django.core.checks import CheckMessage
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.entry import Relation
from realtime.wal.sql_functions import SqlFunctions

if TYPE_CHECKING:
    from realtime.wal.actor_capture import ActorWrapper
    from realtime.wal.catalog import Catalog

# The modules are imported on first use: a project needs the driver of its own database only.
_IMPLEMENTATIONS: Mapping[str, str] = {
    "sqlite": "realtime.wal.sqlite.vendor",
    "postgresql": "realtime.wal.postgresql.vendor",
}

# SQL and its parameters.
Query = tuple[str, list[Any]]


class UnknownVendor(RuntimeError):
    """Changes cannot be captured on this database."""


class ChangeDetector(Protocol):
    """Tells cheaply whether anything can have been committed since the last question."""

    def changed(self) -> bool:
        """Whether something may have changed. Raises OperationalError for a database that is
        gone."""
        ...

    def forget(self) -> None:
        """Make the next answer yes."""
        ...


class Numbering(Protocol):
    """Finds the entries that have no number yet, for one sequencer and its connection.

    What it remembers is a shortcut, and may be forgotten at any time.
    """

    @property
    def snapshot(self) -> str:
        """SQL for a text that says which transactions the statement sees; NULL where that is
        of no use."""
        ...

    @property
    def looks_at_everything(self) -> bool:
        """Whether the next look is at the whole backlog."""
        ...

    def forget(self) -> None:
        """Look at everything next time."""
        ...

    def went_back(self, snapshot: str) -> bool:
        """Whether a look that gave this snapshot met an earlier past than is remembered."""
        ...

    def remember(self, snapshot: str) -> None:
        """Everything that this snapshot shows is numbered."""
        ...

    def waiting(self) -> Query:
        """An expression: whether any entry waits for a number."""
        ...

    def placed(self) -> Query:
        """A WITH clause whose `placed` (id, captured_us, place) are the entries to number next,
        whole transactions in the order they are numbered in. It takes one more parameter: about
        how many entries."""
        ...

    def lock(self, mine: str) -> tuple[str, ...]:
        """Statements that lock the head row `WHERE id = 1` and `mine`, each with the parameters
        of `mine`. The last gives seq, commit_us, the snapshot and the largest number in the
        log; no row where it is not ours."""
        ...


class Vendor(Protocol):
    """One database product."""

    # --- capture ------------------------------------------------------------------------------

    @property
    def triggers_survive_migrations(self) -> bool:
        """Whether triggers stay while tables change under them. If not, they are dropped before
        each migration and made again after it."""
        ...

    def catalog(self, connection: BaseDatabaseWrapper) -> Catalog:
        """The capture triggers of the database."""
        ...

    def actor_wrapper(self, connection: BaseDatabaseWrapper) -> ActorWrapper:
        """What hands the actor to the triggers, around each statement of this connection."""
        ...

    def check(self, alias: str) -> list[CheckMessage]:
        """System checks of a database's settings. Asks no database."""
        ...

    def sql_functions(
        self, connection: BaseDatabaseWrapper, table: str, *, longest_topic: int, longest_event: int
    ) -> SqlFunctions:
        """The functions by which other programs' SQL broadcasts, by rows of the table of messages
        (`db_table`) with names of so many characters at most. Raises NoSqlFunctions where there are
        none."""
        ...

    # --- time and leadership ------------------------------------------------------------------

    @property
    def now_us(self) -> str:
        """SQL for microseconds since 1970 by the database's clock."""
        ...

    @property
    def renews_idle_leases(self) -> bool:
        """Whether a leader renews its lease also while there is nothing to number. A write a
        second is too much where each takes the one write lock of the database."""
        ...

    def limit_lock_wait(self, connection: BaseDatabaseWrapper, milliseconds: int) -> None:
        """Wait no longer than this for other writers from here on, where the database lets a
        connection say so after it was made."""
        ...

    # --- identity -----------------------------------------------------------------------------

    @property
    def head_writer(self) -> str:
        """SQL for a text that says which transaction wrote the head row as it is."""
        ...

    def stamp(self, connection: BaseDatabaseWrapper) -> str:
        """SQL for what a write to the head row puts into `stamp`, so that `is_own` knows the row
        again. An empty text where it could not: such a row is trusted."""
        ...

    def is_own(
        self, connection: BaseDatabaseWrapper, epoch: str, seq: int, stamp: str, writer: str
    ) -> bool:
        """Whether the head row was written here by the log itself, and the log has not gone back
        since. Not so after a restore, a copy, or a fixture that brought a head along."""
        ...

    def remember(self, connection: BaseDatabaseWrapper, epoch: str, seq: int) -> None:
        """The log is committed up to `seq`."""
        ...

    # --- numbering ----------------------------------------------------------------------------

    def change_detector(self, connection: BaseDatabaseWrapper) -> ChangeDetector:
        """Made once for a connection."""
        ...

    def numbering(self) -> Numbering:
        """Made once for a sequencer."""
        ...

    # --- reading ------------------------------------------------------------------------------

    @property
    def begin_snapshot(self) -> str:
        """The statement that begins a read-only transaction in which every query sees the same
        data, without a lock on writers."""
        ...

    def as_bytes(self, text: str) -> str:
        """SQL for the bytes of a text: one that is not valid UTF-8 must not stop the log."""
        ...

    def row_image(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], relation: Relation
    ) -> str:
        """SQL without parameters for the image, as bytes, that the capture trigger would write of
        a row of the model's table."""
        ...

    def prepare_images(self, connection: BaseDatabaseWrapper) -> None:
        """Make values print as they do in the triggers, for the rest of the transaction."""
        ...

    def printing(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[object]:
        """The same for the queries of the block, outside of a snapshot."""
        ...

    # --- pruning and statistics ---------------------------------------------------------------

    def lock_pruning(self, connection: BaseDatabaseWrapper) -> bool:
        """Keep others from pruning until this transaction ends; False if another one prunes."""
        ...

    def newest_writer(self, connection: BaseDatabaseWrapper) -> int:
        """A number above that of every transaction that has written so far."""
        ...

    def ended_before(self, connection: BaseDatabaseWrapper, writer: int) -> bool:
        """Whether every transaction below this number has ended."""
        ...

    def trigger_texts(self, connection: BaseDatabaseWrapper) -> list[str]:
        """The texts of every trigger and its function; one of them names the trigger's
        relation."""
        ...

    def ids_behind(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether new entries would get ids that the log's table has already, as after a restore
        of its rows alone."""
        ...

    def log_bytes(self, connection: BaseDatabaseWrapper) -> int | None:
        """The size of the log's table on disk; None where the database does not tell."""
        ...

    @property
    def random_uuid(self) -> str:
        """SQL for a random UUID, as the database stores one of Django's UUIDField."""
        ...

    @property
    def tune_log(self) -> tuple[str, ...]:
        """Statements that a migration runs once on the log's table."""
        ...


def vendor_of(connection: BaseDatabaseWrapper) -> Vendor:
    """The implementation for this connection. Raises UnknownVendor."""
    if not supports(connection):
        raise UnknownVendor(
            f"Changes cannot be captured on {connection.display_name}; supported: {supported()}."
        )
    return _load(connection.vendor)


def supports(connection: BaseDatabaseWrapper) -> bool:
    """Whether changes can be captured on this database."""
    return connection.vendor in _IMPLEMENTATIONS


def supported() -> str:
    """The supported vendors, for messages."""
    return ", ".join(sorted(_IMPLEMENTATIONS))


@functools.cache
def _load(name: str) -> Vendor:
    implementation: Vendor = import_module(_IMPLEMENTATIONS[name]).vendor
    return implementation
