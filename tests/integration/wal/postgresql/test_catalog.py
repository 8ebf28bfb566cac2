"""Triggers are brought to what is wanted while tables change and are used, on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, models
from django.test.utils import isolate_apps

from realtime import publish
from realtime.wal import triggers as install
from realtime.wal.catalog import State
from realtime.wal.postgresql.catalog import Patience, PostgresqlCatalog
from tests.support.captured_models import (
    changes,
    forget,
    ops,
    states,
    tables_of,
)
from tests.support.postgresql_tables import PLAIN, another, levels, sql, thing_table
from tests.support.threads import at_once
from tests.support.vendors import on_postgresql
from tests.zoo.models import Team

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def empty_log(transactional_db: None) -> None:
    forget()


CHANGES = {
    "a dropped column": ("ALTER TABLE zoo_thing DROP COLUMN size", {"id", "name"}),
    "a renamed column": ("ALTER TABLE zoo_thing RENAME size TO weight", {"id", "name"}),
    "a column of another type": (
        "ALTER TABLE zoo_thing ALTER size TYPE text",
        {"id", "name", "size"},
    ),
    "an added column": ("ALTER TABLE zoo_thing ADD extra int", {"id", "name", "size"}),
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.usefixtures("touch")
def test_no_write_fails_and_none_is_missed_while_a_table_is_ahead_of_its_trigger(
    case: str, level: str
) -> None:
    change, columns = CHANGES[case]
    with thing_table(PLAIN), another() as link:
        if level == "row":
            sql(
                "CREATE TRIGGER z_last AFTER INSERT ON zoo_thing FOR EACH ROW WHEN (NEW.id < 0)"
                " EXECUTE FUNCTION zoo_touch()"
            )
            install.reconcile()
        assert levels()["insert"] == level

        def write() -> list[str]:
            forget()
            link.execute("INSERT INTO zoo_thing (id, name) VALUES (1, 'a'), (2, 'b')")
            link.execute("UPDATE zoo_thing SET name = 'c' WHERE id = 1")
            link.execute("DELETE FROM zoo_thing")
            return ops("zoo_thing")

        wanted = ["INSERT", "INSERT", "UPDATE", "DELETE", "DELETE"]
        # The session has its plans made before the table changes.
        assert write() == wanted
        if "ALTER size" in change or "size" in change:
            sql("DROP TRIGGER IF EXISTS z_last ON zoo_thing")
        link.execute(change)
        assert write() == wanted
        for entry in changes("zoo_thing"):
            for image in (entry.old, entry.new):
                assert image is None or (set(image), image["name"] in "abc") == (columns, True)
        install.reconcile()
        assert write() == wanted
        assert states("zoo_thing") == {"installed"}


@isolate_apps("tests.zoo")
def test_a_duration_that_became_text_is_captured_as_it_stands() -> None:
    class Span(models.Model):
        length = models.DurationField()

        class Meta:
            app_label = "zoo"

    publish(Span)
    with tables_of(Span), another() as link:
        link.execute("INSERT INTO zoo_span (length) VALUES ('1 hour')")
        link.execute("ALTER TABLE zoo_span ALTER length TYPE text")
        link.execute("INSERT INTO zoo_span (length) VALUES ('long')")
        link.execute("UPDATE zoo_span SET length = 'longer'")
        images = [change.new or {} for change in changes(Span)]
    assert [image["length"] for image in images] == ["P0DT01H00M00S", "long", "longer", "longer"]


def test_a_renamed_table_keeps_its_capture_until_it_is_reconciled() -> None:
    with thing_table(PLAIN, drop="DROP TABLE zoo_renamed"):
        sql("ALTER TABLE zoo_thing RENAME TO zoo_renamed")
        sql("INSERT INTO zoo_renamed (id) VALUES (1)")
        assert ops("zoo_thing") == ["INSERT"]
        install.reconcile()
        assert (states("zoo_thing"), states("zoo_renamed")) == (set(), set())
        assert not sql("SELECT 1 FROM pg_proc WHERE proname = 'rowcast_zoo_thing'")


def test_a_dropped_table_leaves_no_function_behind() -> None:
    with thing_table(PLAIN, drop="SELECT 1"):
        sql("DROP TABLE zoo_thing")
        (orphan,) = [t for t in install.status() if t.state is not State.INSTALLED]
        assert (orphan.name, orphan.table, orphan.state) == (
            "rowcast_zoo_thing()",
            "",
            State.ORPHAN,
        )
        install.reconcile()
        assert install.reconcile() == []


def test_without_the_log_no_trigger_is_left_to_fail_a_write() -> None:
    call_command("migrate", "realtime", "zero", verbosity=0)
    try:
        Team.objects.create(name="written")
        assert sql("SELECT 1 FROM pg_trigger WHERE starts_with(tgname, '00_rowcast')") == []
    finally:
        call_command("migrate", verbosity=0)
    Team.objects.create(name="captured")
    assert ops(Team) == ["INSERT"]


@pytest.mark.parametrize(
    "harm",
    [
        'ALTER TABLE zoo_team DISABLE TRIGGER "00_rowcast_update"',
        'ALTER TABLE zoo_team ENABLE TRIGGER "00_rowcast_insert"',
        "ALTER FUNCTION rowcast_zoo_team() SECURITY INVOKER",
        "ALTER FUNCTION rowcast_zoo_team() SET work_mem = '1MB'",
        "ALTER FUNCTION rowcast_zoo_team() RESET ALL",
    ],
)
def test_what_was_tampered_with_is_stale_and_is_put_right(harm: str) -> None:
    sql(harm)
    assert "stale" in states("zoo_team")
    install.reconcile()
    assert states("zoo_team") == {"installed"}
    assert install.reconcile() == []


def test_a_new_shape_takes_no_lock_on_its_table() -> None:
    with another() as link:
        link.autocommit = False
        link.execute("INSERT INTO zoo_team (name) VALUES ('open')")
        sql("ALTER FUNCTION rowcast_zoo_team() SECURITY INVOKER")
        install.reconcile()
        link.rollback()
    assert states("zoo_team") == {"installed"}


def test_a_trigger_on_a_busy_table_is_tried_again_until_the_table_is_free() -> None:
    sql('DROP TRIGGER "00_rowcast_update" ON zoo_team')
    wrong = [trigger for trigger in install.status() if trigger.state is not State.INSTALLED]
    catalog = PostgresqlCatalog(connection, Patience(lock_ms=20, pause=0.01))
    tries = 0
    with another() as link:
        link.autocommit = False
        link.execute("INSERT INTO zoo_team (name) VALUES ('open')")

        def count(execute: Any, statement: Any, params: Any, many: bool, context: Any) -> Any:
            nonlocal tries
            if "pg_advisory_xact_lock" in str(statement):
                tries += 1
                if tries == 3:
                    link.rollback()
            return execute(statement, params, many, context)

        with connection.execute_wrapper(count):
            catalog.apply(wrong)
    assert (tries, states("zoo_team")) == (3, {"installed"})
    assert sql("SHOW lock_timeout") == [("0",)]


def test_a_table_that_stays_busy_is_an_error_and_nobody_waits_behind_it() -> None:
    sql('DROP TRIGGER "00_rowcast_update" ON zoo_team')
    wrong = [trigger for trigger in install.status() if trigger.state is not State.INSTALLED]
    catalog = PostgresqlCatalog(connection, Patience(lock_ms=20, attempts=2, pause=0.0))
    with another() as link:
        link.autocommit = False
        link.execute("INSERT INTO zoo_team (name) VALUES ('open')")
        with pytest.raises(OperationalError, match="lock timeout"):
            catalog.apply(wrong)
        link.rollback()
    install.reconcile()
    assert states("zoo_team") == {"installed"}


def test_two_processes_may_reconcile_at_once() -> None:
    install.uninstall()
    at_once(4, install.reconcile)
    assert {trigger.state for trigger in install.status()} == {State.INSTALLED}
