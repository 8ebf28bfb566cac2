"""Tables of one name in several schemas, as projects with a schema for each tenant have them: what
is captured is one schema's, and where a connection takes another for it, that is said."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from auth_rls.subjects.subject import Subject
from realtime import checks
from realtime.protocol.join import Binding
from realtime.subscriptions.planner import Planner
from realtime.wal import obstacles
from realtime.wal import triggers as install
from tests.support.captured_models import forget, ops, states
from tests.support.postgresql_tables import PLAIN, sql, thing_table
from tests.support.vendors import on_postgresql

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]

DROP = "DROP SCHEMA tenant CASCADE; DROP TABLE IF EXISTS public.zoo_thing CASCADE"
REFUSED = "tables of this name are in several schemas"


@pytest.fixture
def schemas() -> Iterator[None]:
    """A schema `tenant` beside the usual one."""
    sql("CREATE SCHEMA tenant")
    yield
    obstacles.refresh("default")


@contextmanager
def as_tenant(path: str = "tenant, public") -> Iterator[None]:
    """With the search_path of a tenant, as the packages for tenants set it."""
    sql(f"SET search_path = {path}")
    try:
        yield
    finally:
        sql("RESET search_path")


def answer() -> str:
    """What a join to the table is told; empty for "Subscribed"."""
    binding = Binding(id=1, schema="public", table="zoo_thing")
    (problem,) = Planner().plan(Subject.service(), [binding]).problems
    return problem or ""


def homes() -> set[str]:
    """The schemas of tables that our triggers are on."""
    found = sql(
        "SELECT DISTINCT n.nspname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE starts_with(t.tgname, '00_rowcast_') AND c.relname = 'zoo_thing'"
    )
    return {schema for (schema,) in found}


def write(*schemas: str) -> None:
    for schema in schemas:
        sql(f"INSERT INTO {schema}.zoo_thing (name) VALUES ('{schema}')")
        sql(f"UPDATE {schema}.zoo_thing SET size = 1")
        sql(f"DELETE FROM {schema}.zoo_thing")
        sql(f"TRUNCATE {schema}.zoo_thing")


def test_a_table_of_that_name_in_another_schema_is_not_captured(schemas: None) -> None:
    with thing_table(PLAIN.replace("zoo_thing", "public.zoo_thing"), drop=DROP):
        sql("CREATE TABLE tenant.zoo_thing (LIKE public.zoo_thing INCLUDING ALL)")
        install.reconcile()
        write("tenant")
        assert ops("zoo_thing") == []
        write("public")
        assert ops("zoo_thing") == ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]
        assert homes() == {"public"}
        assert answer() == ""


def test_a_tenants_connection_changes_nothing_about_what_is_captured(schemas: None) -> None:
    with thing_table(PLAIN.replace("zoo_thing", "public.zoo_thing"), drop=DROP):
        sql("CREATE TABLE tenant.zoo_thing (LIKE public.zoo_thing INCLUDING ALL)")
        with as_tenant():
            install.reconcile()
            assert homes() == {"public"}
            write("tenant")
            assert ops("zoo_thing") == []


def test_a_server_that_would_read_a_tenants_table_refuses_it(schemas: None) -> None:
    with thing_table(PLAIN.replace("zoo_thing", "public.zoo_thing"), drop=DROP):
        sql("CREATE TABLE tenant.zoo_thing (LIKE public.zoo_thing INCLUDING ALL)")
        with as_tenant():
            obstacles.refresh("default")
            assert REFUSED in answer()
            assert REFUSED in " ".join(
                str(found.msg) for found in checks.check_captured(databases=["default"])
            )
            out = io.StringIO()
            with pytest.raises(CommandError, match="not every table can work"):
                call_command("realtime_triggers", "check", stdout=out)
            assert REFUSED in out.getvalue()
        assert answer() == ""


def test_a_table_that_only_tenants_have_is_captured_of_none(schemas: None) -> None:
    drop = "DROP SCHEMA tenant CASCADE; DROP SCHEMA tenant2 CASCADE"
    sql("CREATE SCHEMA tenant2")
    with as_tenant():
        definition = PLAIN.replace("zoo_thing", "tenant.zoo_thing")
        with thing_table(definition, drop=drop):
            sql("CREATE TABLE tenant2.zoo_thing (LIKE tenant.zoo_thing INCLUDING ALL)")
            install.reconcile()
            assert homes() == set()
            write("tenant", "tenant2")
            assert "INSERT" not in ops("zoo_thing")
            obstacles.refresh("default")
            assert REFUSED in answer()


def test_triggers_that_came_along_with_a_copied_schema_write_nothing(schemas: None) -> None:
    with thing_table(PLAIN.replace("zoo_thing", "public.zoo_thing"), drop=DROP):
        sql("CREATE TABLE tenant.zoo_thing (LIKE public.zoo_thing INCLUDING ALL)")
        copied = sql(
            "SELECT replace(pg_get_triggerdef(oid), 'ON public.zoo_thing', 'ON tenant.zoo_thing')"
            " FROM pg_trigger WHERE tgrelid = 'public.zoo_thing'::regclass AND NOT tgisinternal"
        )
        for (definition,) in copied:
            sql(definition.replace("%", "%%"))
        assert homes() == {"public", "tenant"}
        forget()
        write("tenant")
        assert ops("zoo_thing") == []
        write("public")
        assert ops("zoo_thing") == ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]
        assert "orphan" in states("tenant.zoo_thing")
        install.reconcile()
        assert homes() == {"public"}


def test_the_function_of_a_copied_schema_writes_nothing_to_this_log(schemas: None) -> None:
    with thing_table(PLAIN.replace("zoo_thing", "public.zoo_thing"), drop=DROP):
        sql("CREATE TABLE tenant.zoo_thing (LIKE public.zoo_thing INCLUDING ALL)")
        ((function,),) = sql("SELECT pg_get_functiondef('public.rowcast_zoo_thing'::regproc)")
        sql(function.replace("public.rowcast_zoo", "tenant.rowcast_zoo").replace("%", "%%"))
        for op in ("INSERT", "UPDATE", "DELETE"):
            sql(
                f'CREATE TRIGGER "00_rowcast_{op.lower()}" AFTER {op} ON tenant.zoo_thing'
                " FOR EACH ROW EXECUTE FUNCTION tenant.rowcast_zoo_thing()"
            )
        forget()
        write("tenant")
        assert ops("zoo_thing") == []


def test_parts_of_a_partitioned_table_may_be_in_another_schema(schemas: None) -> None:
    definition = (
        "CREATE TABLE public.zoo_thing (id bigint, name text, size int, PRIMARY KEY (id))"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE tenant.part PARTITION OF public.zoo_thing FOR VALUES FROM (0) TO (100)"
    )
    with thing_table(definition, drop=DROP):
        sql("INSERT INTO zoo_thing VALUES (1, 'a')")
        sql("UPDATE tenant.part SET size = 1")
        sql("DELETE FROM zoo_thing")
        assert ops("zoo_thing") == ["INSERT", "UPDATE", "DELETE"]


@pytest.mark.parametrize(
    "settings_of_tenants",
    [
        {"TENANT_APPS": ["django.contrib.contenttypes", "tests.zoo"]},
        {"TENANT_TYPES": {"public": {"APPS": []}, "shop": {"APPS": ["tests.zoo.apps.ZooConfig"]}}},
        {"TENANTS": {"public": {"APPS": []}, "default": {"APPS": ["tests.zoo"]}}},
    ],
)
def test_published_models_of_each_tenant_are_an_error(
    settings: Any, settings_of_tenants: dict[str, Any]
) -> None:
    for name, value in settings_of_tenants.items():
        setattr(settings, name, value)
    (found,) = checks.check_tenants()
    assert found.id == "realtime.E021"
    assert "zoo.Note" in found.msg and "realtime.WalEntry" not in found.msg


def test_a_log_of_each_tenant_is_an_error(settings: Any) -> None:
    settings.TENANT_APPS = ["realtime", "auth_rls"]
    (found,) = checks.check_tenants()
    assert "realtime.WalEntry" in found.msg and "auth_rls.Policy" in found.msg


def test_shared_models_alone_are_no_error(settings: Any) -> None:
    settings.SHARED_APPS = ["realtime", "auth_rls", "tests.zoo"]
    settings.TENANT_APPS = ["django.contrib.sessions"]
    assert checks.check_tenants() == []
    assert connection.vendor == "postgresql"
