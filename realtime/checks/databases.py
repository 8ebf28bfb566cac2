"""Whether the databases are ready: captured, with policies, and with handlers that go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.documentation import page
from auth_rls.sql.primary import primary
from realtime.conf import settings
from realtime.handling.overview import STOPPED, UNKNOWN, overview
from realtime.wal import published, triggers
from realtime.wal.obstacles import ABSENT, deciding_elsewhere
from realtime.wal.vendor import supported, supports, vendor_of


@register()
def check_database_setting(**kwargs: Any) -> list[CheckMessage]:
    """E004 REALTIME["DATABASE"] names no database, or one that cannot be captured; and the vendor's
    own checks of its settings."""
    alias = settings.DATABASE
    if alias not in django_settings.DATABASES:
        known = ", ".join(map(repr, django_settings.DATABASES))
        return [
            Error(
                f"REALTIME['DATABASE'] is {alias!r}, which DATABASES does not have.",
                hint=f"Its aliases: {known}.",
                id="realtime.E004",
            )
        ]
    connection = connections[alias]
    if not supports(connection):
        return [
            Error(
                f"Changes cannot be captured on {connection.display_name}.",
                hint=f"Supported: {supported()}.",
                id="realtime.E004",
            )
        ]
    return vendor_of(connection).check(alias)


@register()
def check_deciding_databases(**kwargs: Any) -> list[CheckMessage]:
    """E020 policies, users or permissions are written to another database than the log's, where
    their changes are not followed. Streams are refused then, but to the service role."""
    return [
        Error(
            f"{model._meta.label} is written to the database {alias!r}, and the log is in "
            f"{settings.DATABASE!r}: its changes would not be followed.",
            hint="Keep policies, users, groups and permissions in REALTIME['DATABASE'].",
            obj=model,
            id="realtime.E020",
        )
        for model, alias in deciding_elsewhere(settings.DATABASE).items()
    ]


@register(Tags.database)
def check_policies(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """auth_rls.W001 a published model without a policy, so that only superusers see its rows."""
    if primary(apps.get_model("auth_rls", "Policy")) not in (databases or ()):
        return []
    try:
        snapshot = PolicySnapshot.load_if_migrated()
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [
        Warning(
            f"{entry.model._meta.label} is published, but no policy lets anybody see its rows.",
            hint="Add a policy for its view permission in the admin, under Row-level security.",
            obj=entry.model,
            id="auth_rls.W001",
        )
        for entry in published.published()
        if not snapshot.rules(entry.model, "view")
    ]


@register(Tags.database)
def check_captured(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W004 a published model that cannot be captured: it is kept in another database, or is a view,
    a foreign table or no table at all; a trigger that fires before Rowcast's."""
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias):
            return []
        found = triggers.faults(alias)
        if any(ABSENT in text for text in found) and _pending(alias):
            # The migration that makes it is still to run.
            found = [text for text in found if ABSENT not in text]
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [Warning(text, id="realtime.W004") for text in found]


@register(Tags.database)
def check_triggers(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E010 tables whose triggers are not what they should be, so that changes go uncaptured.

    A warning by level, because `migrate`, which puts it right, refuses to run on errors. Silent
    before the first migration.
    """
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias):
            return []
        wrong = [t for t in triggers.status(alias) if t.state is not triggers.State.INSTALLED]
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    if not wrong:
        return []
    tables: dict[str, set[str]] = {}
    for trigger in wrong:
        tables.setdefault(trigger.table, set()).add(trigger.state.value)
    listed = ", ".join(f"{t} ({', '.join(sorted(s))})" for t, s in sorted(tables.items()))
    return [
        Warning(
            f"Capture triggers are not as they should be: {listed}.",
            hint="Run `manage.py migrate` or `manage.py realtime_triggers install`.",
            id="realtime.E010",
        )
    ]


@register(Tags.database)
def check_handlers_go_on(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W030 a handler that stands still, or whose row no code knows: the log is kept for it, up to a
    bound, and its changes wait."""
    alias = settings.DATABASE
    if alias not in (databases or ()) or not supports(connections[alias]):
        return []
    try:
        if not triggers.log_exists(alias) or _pending(alias):
            return []
        states = overview(alias)
    except DatabaseError:
        return []  # no usable database: Django's own checks and commands report that
    return [
        Warning(
            f"The handler {state.name!r} is {state.state} at {state.seq}: {state.error}",
            hint=f"`manage.py handlers list`; see {page('how-to/run-code-on-changes')}.",
            id="realtime.W030",
        )
        for state in states
        if state.state in (STOPPED, UNKNOWN)
    ]


def _pending(alias: str) -> bool:
    executor = MigrationExecutor(connections[alias])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
