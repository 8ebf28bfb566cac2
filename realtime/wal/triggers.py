"""Installs the capture triggers that a database should have: for published tables, and for those
that decide access.

Triggers are reconciled state, not migration operations. Where they do not survive migrations
(SQLite) they are dropped before one runs; elsewhere they stay and go on capturing. Afterwards each
is compared with the wanted one: a missing trigger is made, a stale one is replaced, and one that is
no longer wanted is removed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from django.apps import AppConfig, apps
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_delete, post_migrate, post_save, pre_migrate

from realtime.conf import settings
from realtime.wal import obstacles, published
from realtime.wal.capture import Capture, label, table_name_of
from realtime.wal.catalog import Catalog, State, Trigger
from realtime.wal.head import begin_epoch, read_head
from realtime.wal.vendor import UnknownVendor, supports, vendor_of

__all__ = ["State", "Trigger", "UnknownVendor", "reconcile", "restore", "status", "uninstall"]

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


def status(using: str | None = None) -> list[Trigger]:
    """Every wanted or installed trigger, by name. In a database thread.

    Raises UnknownVendor.
    """
    connection = _connection(using)
    catalog = vendor_of(connection).catalog(connection)
    return catalog.compare(_wanted(connection, catalog))


def faults(using: str | None = None) -> list[str]:
    """Faults that no trigger of ours can mend, for operators: published models whose changes cannot
    be captured, and foreign triggers that fire before ours. In a database thread.

    Raises UnknownVendor.
    """
    connection = _connection(using)
    catalog = vendor_of(connection).catalog(connection)
    wanted = _wanted(connection, catalog)
    reasons = obstacles.find(connection)
    found = [
        f"{entry.model._meta.label} is published and never captured: {reason}."
        for entry in published.published()
        if (reason := reasons.get(entry.model._meta.db_table)) is not None
    ]
    found += [
        f"The trigger {name!r} on {table} fires before Rowcast's, so what it writes about a row "
        "stands in the log before the change that set it off. Rename it: triggers fire in the "
        "order of their names."
        for table, name in catalog.ahead(wanted)
    ]
    return found


def uncaptured(using: str | None = None) -> set[str]:
    """The published tables (by `db_table`) that lack a trigger. In a database thread.

    Raises UnknownVendor, and what the database raises.
    """
    lacking = {trigger.table for trigger in status(using) if trigger.state is State.MISSING}
    return {
        entry.model._meta.db_table
        for entry in published.published()
        if label(entry.schema, entry.table) in lacking
    }


def captures_all(models: Iterable[type[models.Model]], using: str | None = None) -> bool:
    """Whether every wanted trigger on the tables of these models is in place and enabled, and they
    have some. In a database thread.

    Raises UnknownVendor, and what the database raises.
    """
    ready: dict[str, bool] = {}
    for trigger in status(using):
        if trigger.state is not State.ORPHAN:
            good = trigger.state is State.INSTALLED
            ready[trigger.table] = ready.get(trigger.table, True) and good
    return all(ready.get(label(*table_name_of(model)), False) for model in models)


def marks(using: str | None = None) -> frozenset[object]:
    """Another value whenever a trigger has come or gone, or is switched on or off. In a database
    thread.

    Raises UnknownVendor, and what the database raises.
    """
    connection = _connection(using)
    return vendor_of(connection).catalog(connection).marks()


def reconcile(using: str | None = None) -> list[Trigger]:
    """Install missing triggers, replace stale ones, and remove those that are not wanted any more.
    Returns the changed triggers. Takes no lock if there is nothing to change.

    Does nothing while the tables of the log do not exist. In a database thread.
    """
    connection = _connection(using)
    if not log_exists(using):
        return []
    catalog = vendor_of(connection).catalog(connection)
    wanted = _wanted(connection, catalog)
    if _settled(connection, catalog, wanted):
        return []
    with catalog.exclusive():
        _record(connection, wanted)
        changes = [
            trigger for trigger in catalog.compare(wanted) if trigger.state is not State.INSTALLED
        ]
        catalog.apply(changes)
    for trigger in changes:
        logger.info(
            "%s trigger %s on %s",
            trigger.state,
            trigger.name,
            trigger.table,
            extra={"action": "reconcile_trigger"},
        )
    return changes


def restore(using: str | None = None) -> list[Trigger]:
    """`reconcile`, and begin a new epoch where a table of which the log may have entries lacked a
    trigger: writes without one are not in the log, so clients must read their rows again. Returns
    the changed triggers. In a database thread."""
    return _restore(using, _known_tables(using))


def _restore(using: str | None, known: Collection[str]) -> list[Trigger]:
    changes = reconcile(using)
    if any(trigger.state is State.MISSING and trigger.table in known for trigger in changes):
        begin_epoch(_connection(using))
    return changes


def _restore_published(using: str | None) -> list[Trigger]:
    """`restore` after a change of policies. Tables that are not published come and go with the
    policies that read them, so a trigger that they lacked tells of no lost write."""
    shown = {label(entry.schema, entry.table) for entry in published.published()}
    return _restore(using, _known_tables(using) & shown)


def uninstall(using: str | None = None) -> list[str]:
    """Drop every capture trigger; returns their names. Until the next `restore`, writes go
    on uncaptured."""
    connection = _connection(using)
    return vendor_of(connection).catalog(connection).remove()


def _connection(using: str | None) -> BaseDatabaseWrapper:
    connection = connections[using or settings.DATABASE]
    vendor_of(connection)
    return connection


def log_exists(using: str | None = None) -> bool:
    """Whether the tables of the log have been migrated: they have the columns that triggers write,
    and no other one that needs a value."""
    from realtime.models import LogHead, WalEntry, WalNumber, WalRelation

    connection = _connection(using)
    needed = {model._meta.db_table for model in (LogHead, WalEntry, WalNumber, WalRelation)}
    if not needed <= set(connection.introspection.table_names()):
        return False
    # A trigger that names a column which is still to come would fail every write, and so would one
    # that leaves out a column of an older version.
    with connection.cursor() as cursor:
        table = WalEntry._meta.db_table
        present = connection.introspection.get_table_description(cursor, table)
    columns = {field.column for field in WalEntry._meta.concrete_fields}
    return columns <= {column.name for column in present} and all(
        column.name in columns or column.null_ok for column in present
    )


def _wanted(connection: BaseDatabaseWrapper, catalog: Catalog) -> list[Capture]:
    reads = list(_reads(connection))
    concerned = [
        *(entry.model for entry in published.declared()),
        *(model for model, _ in reads),
        *published.internal_models(),
    ]
    columns = catalog.columns({(m._meta.concrete_model or m)._meta.db_table for m in concerned})
    return published.captures(reads, lambda table: columns.get(table, ()))


def _reads(
    connection: BaseDatabaseWrapper,
) -> Iterable[tuple[type[models.Model], Collection[str]]]:
    """Which columns of which models decide access."""
    from auth_rls.access import authority

    try:
        # A savepoint: a failed query must not break the caller's transaction.
        with transaction.atomic(using=connection.alias):
            return [
                *authority.watched().items(),
                *(
                    (entry.model, authority.columns_read(entry.model))
                    for entry in published.published()
                ),
            ]
    except DatabaseError as error:
        # Half-way through migrations the policy table may differ from its model. Policies that
        # cannot be read show no row, so nothing needs to be captured for them.
        logger.warning(
            "policies cannot be read, so what they depend on is not captured: %s",
            error,
            extra={"action": "policies_unreadable"},
        )
        return []


def _settled(connection: BaseDatabaseWrapper, catalog: Catalog, captures: list[Capture]) -> bool:
    from realtime.models import LogHead

    return (
        all(trigger.state is State.INSTALLED for trigger in catalog.compare(captures))
        and not _unrecorded(connection, captures)
        and LogHead.objects.using(connection.alias).exists()
    )


def _unrecorded(connection: BaseDatabaseWrapper, captures: list[Capture]) -> list[Capture]:
    from realtime.models import WalRelation

    known = set(WalRelation.objects.using(connection.alias).values_list("id", flat=True))
    return [capture for capture in captures if capture.relation.id not in known]


def _record(connection: BaseDatabaseWrapper, captures: list[Capture]) -> None:
    """Store the relations that entries will name, and the head if there is none."""
    from realtime.models import LogHead, WalEntry, WalRelation

    WalRelation.objects.using(connection.alias).bulk_create(
        [
            WalRelation(
                id=capture.relation.id,
                schema_name=capture.relation.schema,
                table_name=capture.relation.table,
                definition=_encode(capture.relation).decode(),
            )
            for capture in _unrecorded(connection, captures)
        ],
        ignore_conflicts=True,
    )
    if not LogHead.objects.using(connection.alias).exists():
        # `flush` empties the log and leaves entries about the rows it deleted last. A new head
        # is a new epoch, at which every client starts anew and these entries are of no use.
        WalEntry.objects.using(connection.alias).filter(seq=None).delete()
        read_head(connection)


def connect(sender: AppConfig) -> None:
    """Connect to the signals of migrations and policies. Makes no query."""
    pre_migrate.connect(before_migrations, sender=sender, dispatch_uid="realtime.wal.install")
    post_migrate.connect(after_migrations, sender=sender, dispatch_uid="realtime.wal.install")
    policy = apps.get_model("auth_rls", "Policy")
    for signal in (post_save, post_delete):
        signal.connect(_policy_changed, sender=policy, dispatch_uid="realtime.wal.install")


def _concerns(using: str) -> bool:
    return using == settings.DATABASE and supports(connections[using])


def before_migrations(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Receiver of pre_migrate: drop the triggers that would not survive the plan."""
    # Without migrations nothing is dropped, so that no write goes uncaptured.
    if not plan or not _concerns(using):
        return
    # No trigger survives the end of the log's own table.
    survive = vendor_of(connections[using]).triggers_survive_migrations
    if not survive or _unmakes_the_log(plan):
        uninstall(using)


def _unmakes_the_log(plan: Iterable[Any]) -> bool:
    return any(backwards and migration.app_label == "realtime" for migration, backwards in plan)


def after_migrations(using: str, **kwargs: Any) -> None:
    """Receiver of post_migrate: install the wanted triggers."""
    if not _concerns(using):
        return
    connection = connections[using]
    if not vendor_of(connection).triggers_survive_migrations and log_exists(using):
        with connection.cursor() as cursor:
            for statement in vendor_of(connection).bind_numbers:
                cursor.execute(statement)
    restore(using)


def _known_tables(using: str | None) -> set[str]:
    """The tables of which the log may have entries already."""
    from realtime.models import WalRelation

    if not log_exists(using):
        return set()
    names = WalRelation.objects.using(_connection(using).alias).values_list(
        "schema_name", "table_name"
    )
    return {label(schema, table) for schema, table in names.distinct()}


def follow_policies(using: str) -> None:
    """`restore` for a server process that has noticed a change of policies. A failure is logged;
    without its triggers, a table that decides access counts as it was last read."""
    if not supports(connections[using]):
        return
    try:
        _restore_published(using)
    except DatabaseError as error:
        logger.error(
            "triggers cannot be reconciled with the policies: %s",
            error,
            extra={"action": "reconcile_failed"},
        )


def _policy_changed(using: str, **kwargs: Any) -> None:
    """A policy was saved or deleted here, and may read other columns. A failure is logged and not
    raised in the save."""
    if supports(connections[settings.DATABASE]):
        transaction.on_commit(
            functools.partial(_restore_published, settings.DATABASE), using=using, robust=True
        )
