"""The tables of presence: captured by no trigger, also after an older version captured them, and
without a write-ahead log where the database can do without."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from realtime.models import PresenceMember, PresenceNumber
from realtime.wal import published, triggers

pytestmark = pytest.mark.usefixtures("wal")

TABLES = {model._meta.db_table for model in (PresenceMember, PresenceNumber)}


def captured() -> set[str]:
    return {trigger.table for trigger in triggers.status()}


def test_no_trigger_captures_presence() -> None:
    assert captured().isdisjoint(TABLES)


def test_triggers_of_an_older_version_are_dropped_by_migrate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = PresenceMember._meta.db_table
    with monkeypatch.context() as older:
        every = published.captures

        def with_presence(watched: object, present: object) -> object:
            columns = [field.column for field in PresenceMember._meta.fields]
            return every([*watched, (PresenceMember, columns)], present)  # type: ignore[misc,arg-type]

        internal = (*published.internal_models(), PresenceMember)
        older.setattr(published, "captures", with_presence)
        older.setattr(published, "internal_models", lambda: internal)
        triggers.reconcile()
        assert table in captured()
    call_command("migrate", verbosity=0)
    assert captured().isdisjoint(TABLES)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL alone")
def test_postgresql_writes_nothing_of_presence_to_its_own_log() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, relpersistence FROM pg_class WHERE relname = ANY(%s)", [[*TABLES]]
        )
        assert dict(cursor.fetchall()) == dict.fromkeys(TABLES, "u")
