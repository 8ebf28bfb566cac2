"""What cannot be captured, and triggers of others: it works, or a check and the join say so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps

from auth_rls.subjects.subject import Subject
from realtime import checks, publish
from realtime.protocol.join import Binding, parse_join
from realtime.subscriptions.planner import Planner
from realtime.topics.rights import ALL, NONE
from realtime.wal import obstacles, triggers
from tests.support.captured_models import changes, forget, states, withdraw
from tests.support.tokens import token
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Team

pytestmark = pytest.mark.django_db(transaction=True)


class Elsewhere:
    """A router that keeps one model in another database."""

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "second" if model.__name__ == "Thing" else None

    db_for_read = db_for_write


def sql(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def thing(*statements: str, drop: str = "") -> Iterator[type[models.Model]]:
    """A published model, and in its table's place what the statements make."""
    with isolate_apps("tests.zoo"):

        @publish
        class Thing(models.Model):
            name = models.TextField(null=True)

            class Meta:
                app_label = "zoo"
                managed = False
                db_table = "zoo_thing"

        sql(*statements)
        try:
            triggers.reconcile()
            yield Thing
        finally:
            withdraw(Thing)
            if drop:
                sql(drop)
            triggers.reconcile()
            obstacles.refresh("default")


def answer(table: str = "zoo_thing") -> str | None:
    """What a join to the table is told, None for "Subscribed"."""
    asked = parse_join(
        {"config": {"postgres_changes": [{"event": "*", "schema": "public", "table": table}]}}
    )
    (problem,) = Planner().plan(Subject.service(), asked.bindings).problems
    return problem


def checked() -> str:
    return " ".join(str(found.msg) for found in checks.check_captured(databases=["default"]))


def command() -> str:
    out = io.StringIO()
    with pytest.raises(CommandError, match="not every table can work"):
        call_command("realtime_triggers", "check", stdout=out)
    return out.getvalue()


TABLE = ("CREATE TABLE zoo_thing (id integer PRIMARY KEY, name text)",)
VIEW = ("CREATE VIEW zoo_thing AS SELECT id, name FROM zoo_team",)


def test_a_table_is_no_obstacle() -> None:
    with thing(*TABLE, drop="DROP TABLE zoo_thing"):
        assert answer() is None
        assert checked() == ""
        call_command("realtime_triggers", "check", verbosity=0)


@pytest.mark.parametrize(
    "statements, drop, reason",
    [
        (VIEW, "DROP VIEW zoo_thing", "it is a view"),
        ((), "", "the table does not exist"),
    ],
    ids=["view", "absent"],
)
def test_what_has_no_triggers_is_refused_in_words(
    statements: tuple[str, ...], drop: str, reason: str
) -> None:
    with thing(*statements, drop=drop):
        told = answer()
        assert told is not None
        assert f"nothing can come of zoo_thing: {reason}" in told
        assert f"zoo.Thing is published and never captured: {reason}" in checked()
        assert reason in command()
        # A whole schema is served without it.
        assert answer("*") is None
    assert checked() == ""


@on_postgresql
def test_a_foreign_table_is_refused_in_words() -> None:
    made = (
        "CREATE EXTENSION IF NOT EXISTS file_fdw",
        "CREATE SERVER zoo_files FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE zoo_thing (id int, name text) SERVER zoo_files"
        " OPTIONS (filename '/dev/null')",
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'file_fdw'")
        if cursor.fetchone() is None:
            pytest.skip("this server has no file_fdw")
    with thing(*made, drop="DROP SERVER zoo_files CASCADE"):
        assert "it is a foreign table" in str(answer())
        assert "it is a foreign table" in checked()


@on_postgresql
def test_a_materialized_view_is_refused_in_words() -> None:
    made = "CREATE MATERIALIZED VIEW zoo_thing AS SELECT id, name FROM zoo_team"
    with thing(made, drop="DROP MATERIALIZED VIEW zoo_thing"):
        assert "it is a materialized view" in str(answer())


@override_settings(DATABASE_ROUTERS=[Elsewhere()])
def test_a_model_that_is_kept_in_another_database_is_refused_in_words() -> None:
    with thing(*TABLE, drop="DROP TABLE zoo_thing"):
        told = str(answer())
        assert "its rows are kept in another database than the log" in told
        assert "second" not in told
        assert "kept in another database" in checked()
        assert "kept in another database" in command()


def test_a_table_that_is_made_later_works_from_then_on() -> None:
    with thing(drop="DROP TABLE zoo_thing"):
        assert answer() is not None
        sql(*TABLE)
        triggers.reconcile()
        assert answer() is None


# --- triggers of others --------------------------------------------------------------------------

TOUCH = """
CREATE TRIGGER {name} AFTER UPDATE OF name ON zoo_thing BEGIN
    UPDATE zoo_thing SET version = version + 1 WHERE id = NEW.id;
END
"""
FILL = """
CREATE TRIGGER {name} AFTER INSERT ON zoo_thing BEGIN
    UPDATE zoo_thing SET version = 7 WHERE id = NEW.id;
END
"""


@contextmanager
def versioned() -> Iterator[type[models.Model]]:
    with isolate_apps("tests.zoo"):

        @publish
        class Thing(models.Model):
            name = models.TextField(null=True)
            version = models.IntegerField(default=0)

            class Meta:
                app_label = "zoo"
                db_table = "zoo_thing"

        with connection.schema_editor() as editor:
            editor.create_model(Thing)
        try:
            triggers.reconcile()
            forget()
            yield Thing
        finally:
            withdraw(Thing)
            triggers.reconcile()
            with connection.schema_editor() as editor:
                editor.delete_model(Thing)


def check_last_image(model: Any) -> None:
    forget()
    made = model.objects.create(name="a")
    model.objects.filter(pk=made.pk).update(name="b")
    last = changes(model)[-1].new
    assert last is not None
    assert last == model.objects.values("id", "name", "version").get()


@on_sqlite
@pytest.mark.parametrize("body", [TOUCH, FILL], ids=["on update", "on insert"])
def test_a_trigger_that_was_made_after_ours_is_found_and_put_right(body: str) -> None:
    with versioned() as model:
        sql(body.format(name="touch"))
        assert "stale" in states("zoo_thing")
        with pytest.raises(CommandError, match="stale"):
            call_command("realtime_triggers", "check", verbosity=0)
        triggers.reconcile()
        assert states("zoo_thing") == {"installed"}
        check_last_image(model)


@on_sqlite
def test_a_trigger_that_was_made_before_ours_is_no_fault() -> None:
    with versioned() as model:
        triggers.uninstall()
        sql(TOUCH.format(name="zz_touch"), FILL.format(name="aa_fill"))
        triggers.reconcile()
        assert states("zoo_thing") == {"installed"}
        check_last_image(model)


PLPGSQL = """
CREATE FUNCTION zoo_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE zoo_thing SET version = version + 1 WHERE id = NEW.id;
    RETURN NULL;
END $$
"""


@on_postgresql
@pytest.mark.parametrize("name", ["zz_touch", "00_a_touch"])
def test_a_trigger_that_fires_before_ours_is_named_by_the_checks(name: str) -> None:
    with versioned() as model:
        sql(
            PLPGSQL,
            f'CREATE TRIGGER "{name}" AFTER UPDATE OF name ON zoo_thing FOR EACH ROW'
            " EXECUTE FUNCTION zoo_touch()",
        )
        try:
            triggers.reconcile()
            if name < "00_rowcast_":
                assert f"The trigger '{name}' on zoo_thing fires before Rowcast's" in checked()
                assert name in command()
            else:
                assert checked() == ""
                check_last_image(model)
        finally:
            sql("DROP FUNCTION zoo_touch() CASCADE")


def test_other_tables_are_not_concerned() -> None:
    Team.objects.create(name="a")
    assert states("zoo_team") == {"installed"}


class Apart:
    """A router that keeps the accounts in another database than the log."""

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "accounts" if model.__name__ in ("Group", "Permission") else None


@override_settings(DATABASE_ROUTERS=[Apart()])
def test_nothing_is_streamed_by_policies_whose_accounts_are_kept_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    binding = Binding(id=1, schema="public", table="zoo_team")
    for subject in (Subject.anonymous(), Subject.from_token(token("7"))):
        plan = Planner().plan(subject, [binding], private="room")
        assert plan.subscriptions == ()
        assert "kept in another database than the log" in str(plan.problems[0])
        assert plan.rights == NONE
    assert "realtime.E020" in caplog.text
    # The key of a server depends on no account.
    plan = Planner().plan(Subject.service(), [binding], private="room")
    assert plan.problems == (None,)
    assert plan.rights == ALL
