"""The interface of the log to a database, with one implementation per vendor.

No module outside the implementations checks which vendor a connection has. A third vendor is a
module with an object `vendor` that implements `Vendor`, named in `_IMPLEMENTATIONS`; the section "A
third database" in docs/architecture.md goes through the interface part by part.

The objects have no state. Each method takes the connection that it works on and runs in a database
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
from realtime.wal.partitions import Partitions
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
    """Finds out cheaply whether anything can have been committed since the last call."""

    def changed(self) -> bool:
        """Whether something may have changed. Raises OperationalError for a database that is
        gone."""
        ...

    def forget(self) -> None:
        """Let the next call of `changed` return True."""
        ...


class Numbering(Protocol):
    """Finds the entries that have no number yet.

    It may remember a snapshot of the database all of whose entries have numbers, so that a look
    reads newer ones only. `forget` drops it at any time.
    """

    @property
    def snapshot(self) -> str:
        """SQL for a text that names the transactions which the statement sees; NULL if numbering
        does not need it."""
        ...

    @property
    def looks_at_everything(self) -> bool:
        """Whether the next look reads the whole log, because nothing is remembered."""
        ...

    def forget(self) -> None:
        """Read the whole log at the next look."""
        ...

    def went_back(self, snapshot: str) -> bool:
        """Whether this snapshot of a look is older than the remembered one."""
        ...

    def ids_went_back(self, snapshot: str) -> bool:
        """Whether new entries get ids again that had been drawn when the remembered snapshot was
        read, as far as this snapshot of a look tells. If so, no order of ids is relied on for what
        came since `trust_ids`."""
        ...

    def hidden(self) -> Query | None:
        """An SQL expression for whether there is an entry without a number that looks do not find,
        because its id came out of order. None where looks rely on no order."""
        ...

    def trust_ids(self) -> None:
        """Nothing is hidden from looks so far."""
        ...

    def distrust_ids(self) -> None:
        """Have the next look rely on no order of the ids of what came since `trust_ids`."""
        ...

    def remember(self, snapshot: str) -> None:
        """Every entry that this snapshot shows has a number."""
        ...

    def shortened(self, snapshot: str) -> str:
        """A snapshot that shows nothing which this one does not, and is never long."""
        ...

    def unnumbered(self, columns: str) -> Query:
        """A SELECT of these columns of the entries `w` without a number, in no order."""
        ...

    def waiting(self) -> Query:
        """An SQL expression for whether any entry waits for a number."""
        ...

    def ranked(self) -> Query:
        """A WITH clause whose `ranked` (id, captured_us, rank) are the entries to number next,
        whole transactions in the order they are numbered in. It takes one more parameter: about
        how many entries."""
        ...

    def lock(self, mine: str) -> tuple[str, ...]:
        """Statements that lock the head row `WHERE id = 1` and `mine`, each with the parameters
        of `mine`. The last one returns seq, commit_us, the snapshot and the largest number in the
        log; no row if the conditions of `mine` fail."""
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
        """A wrapper around each statement of this connection, which hands the actor to the
        triggers."""
        ...

    def check(self, alias: str) -> list[CheckMessage]:
        """System checks of a database's settings. Makes no query."""
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
        """Whether a leader renews its lease also while there is nothing to number. It does not
        where each write takes the one write lock of the database."""
        ...

    def limit_lock_wait(self, connection: BaseDatabaseWrapper, milliseconds: int) -> None:
        """Wait no longer than this for other writers from here on, if the database allows setting
        that on an open connection."""
        ...

    def cancel(self, connection: BaseDatabaseWrapper) -> None:
        """End the statement that this connection runs in another thread, which gets an error. Does
        nothing where it runs none."""
        ...

    def lost_to_others(self, error: BaseException) -> bool:
        """Whether a statement failed only because of other transactions of the moment: a deadlock,
        a conflict of versions, a lock that was not to be had."""
        ...

    # --- identity -----------------------------------------------------------------------------

    @property
    def head_writer(self) -> str:
        """SQL for a text that identifies the transaction which wrote the head row."""
        ...

    def stamp(self, connection: BaseDatabaseWrapper) -> str:
        """SQL for the value of `stamp` in a write to the head row, by which `is_own` recognises the
        row. An empty text if that is not possible; such a row is trusted."""
        ...

    def is_own(
        self, connection: BaseDatabaseWrapper, epoch: str, seq: int, stamp: str, writer: str
    ) -> bool:
        """Whether the head row was written here by the log itself, and the log has not gone back
        since. False after a restore, a copy, or a fixture with a head."""
        ...

    def remember(self, connection: BaseDatabaseWrapper, epoch: str, seq: int) -> None:
        """The log is committed up to `seq`."""
        ...

    # --- numbering ----------------------------------------------------------------------------

    def change_detector(self, connection: BaseDatabaseWrapper) -> ChangeDetector:
        """A change detector. Call it once for a connection."""
        ...

    def numbering(self) -> Numbering:
        """A numbering. Call it once for a sequencer."""
        ...

    # --- reading ------------------------------------------------------------------------------

    @property
    def begin_snapshot(self) -> str:
        """The statement that begins a read-only transaction in which every query sees the same
        data, without a lock on writers."""
        ...

    def as_bytes(self, text: str) -> str:
        """SQL for the bytes of a text, because a text that is not valid UTF-8 must not stop the
        log."""
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
        """The texts of all triggers and their functions, which contain the ids of relations."""
        ...

    def ids_behind(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether new entries would get ids that the log's table has already, as after a restore
        of its rows alone: writes to published tables then fail."""
        ...

    def pass_taken_ids(self, connection: BaseDatabaseWrapper) -> None:
        """Have new entries get ids behind those that are taken. Raises what the database raises."""
        ...

    def partitions(self, connection: BaseDatabaseWrapper) -> Partitions | None:
        """The partitions of the log; None if it is one table, from which entries are deleted."""
        ...

    def partition_log(self, connection: BaseDatabaseWrapper) -> None:
        """Keep the log in partitions from now on, where the database has any. Runs outside of a
        transaction, on a log of any size and beside writers, and may run again."""
        ...

    def unpartition_log(self, connection: BaseDatabaseWrapper) -> None:
        """Keep the log in one table again. Writers wait while entries are copied."""
        ...

    @property
    def entry_bytes(self) -> str:
        """SQL for about how many bytes an entry `w` takes on disk, with its number and indexes."""
        ...

    def log_bytes(self, connection: BaseDatabaseWrapper) -> int | None:
        """The bytes of the log's table on disk; None if the database does not tell."""
        ...

    @property
    def random_uuid(self) -> str:
        """SQL for a random UUID, as the database stores one of Django's UUIDField."""
        ...

    @property
    def index_log(self) -> tuple[str, ...]:
        """Statements that make the indexes of the log's table that models cannot describe, and tell
        the planner about them. They run outside of a transaction and may run again."""
        ...

    @property
    def bind_numbers(self) -> tuple[str, ...]:
        """Statements that make triggers by which an entry's number is deleted with the entry. They
        may run again; where Django remakes the log's table, they run after each migration."""
        ...

    @property
    def unbind_numbers(self) -> tuple[str, ...]:
        """Statements that drop those triggers."""
        ...

    def forgets_in_a_crash(self, table: str) -> tuple[str, ...]:
        """Statements after which the table (`db_table`) costs less to write and may be empty after
        a crash of the database. None where there is no such thing."""
        ...

    def outlives_a_crash(self, table: str) -> tuple[str, ...]:
        """Statements that undo those of `forgets_in_a_crash`."""
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
