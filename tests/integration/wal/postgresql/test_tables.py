"""Tables of every sort on PostgreSQL: other schemas, partitions, heirs, views, odd names."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from auth_rls.predicates.kinds import Kind
from auth_rls.subjects import tokens
from realtime import publish
from realtime.wal import published
from realtime.wal import triggers as install
from realtime.wal.entry import ColumnInfo
from realtime.wal.postgresql import values
from tests.support.captured_models import (
    changes,
    forget,
    ops,
    recorded,
    states,
    tables_of,
)
from tests.support.postgresql_tables import PLAIN, another, levels, sql, thing_table
from tests.support.socket_client import Client, db
from tests.support.vendors import on_postgresql
from tests.zoo.models import Note, Team

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def empty_log(transactional_db: None) -> None:
    forget()


def test_a_table_in_another_schema_is_known_by_that_schema() -> None:
    sql("CREATE SCHEMA IF NOT EXISTS warehouse")
    definition = PLAIN.replace("zoo_thing", "warehouse.thing")
    drop = "DROP SCHEMA warehouse CASCADE"
    with thing_table(definition, db_table='warehouse"."thing', drop=drop) as model:
        sql("INSERT INTO warehouse.thing (name) VALUES ('a')")
        model._default_manager.update(size=1)
        assert states("warehouse.thing") == {"installed"}
        assert ops("thing") == ["INSERT", "UPDATE"]
        relation = recorded(changes("thing")[0].relation_id)
        assert (relation.schema, relation.table) == ("warehouse", "thing")
        (entry,) = [entry for entry in published.published() if entry.model is model]
        assert (entry.schema, entry.table) == ("warehouse", "thing")


def test_a_table_found_by_the_search_path_is_captured() -> None:
    sql("CREATE SCHEMA tenant")
    sql("SET search_path = tenant, public")
    try:
        with thing_table(PLAIN, drop="DROP SCHEMA tenant CASCADE"):
            sql("INSERT INTO zoo_thing (name) VALUES ('a')")
            assert ops("zoo_thing") == ["INSERT"]
            assert recorded(changes("zoo_thing")[0].relation_id).schema == "public"
    finally:
        sql("SET search_path = public")


def test_the_triggers_of_a_log_in_another_schema_are_not_ours() -> None:
    sql("CREATE SCHEMA neighbour")
    try:
        sql("CREATE TABLE neighbour.thing (id int)")
        sql(
            "CREATE FUNCTION neighbour.rowcast_thing() RETURNS trigger LANGUAGE plpgsql"
            " AS $$BEGIN RETURN NULL; END$$"
        )
        sql(
            'CREATE TRIGGER "00_rowcast_insert" AFTER INSERT ON neighbour.thing'
            " FOR EACH ROW EXECUTE FUNCTION neighbour.rowcast_thing()"
        )
        assert install.reconcile() == []
        install.uninstall()
        install.reconcile()
        assert sql("SELECT 1 FROM pg_trigger WHERE tgrelid = 'neighbour.thing'::regclass")
    finally:
        sql("DROP SCHEMA neighbour CASCADE")


PARTITIONED = """
CREATE TABLE zoo_thing (id bigint, name text, size int, PRIMARY KEY (id, size))
    PARTITION BY RANGE (size);
CREATE TABLE zoo_thing_low PARTITION OF zoo_thing FOR VALUES FROM (0) TO (10);
CREATE TABLE zoo_thing_high (size int NOT NULL, id bigint NOT NULL, dropped int, name text);
ALTER TABLE zoo_thing_high DROP COLUMN dropped;
ALTER TABLE zoo_thing ATTACH PARTITION zoo_thing_high FOR VALUES FROM (10) TO (20);
"""


def test_a_partitioned_table_is_captured_whichever_part_is_written_to() -> None:
    with thing_table(PARTITIONED):
        assert levels()["insert"] == "row"
        sql("CREATE TABLE zoo_thing_later PARTITION OF zoo_thing FOR VALUES FROM (20) TO (30)")
        assert states("zoo_thing") == {"installed"}
        sql("INSERT INTO zoo_thing VALUES (1, 'a', 1), (2, 'b', 12), (3, 'c', 22)")
        sql("INSERT INTO zoo_thing_high (id, name, size) VALUES (4, 'd', 11)")
        sql("UPDATE zoo_thing_later SET name = 'C'")
        sql("DELETE FROM zoo_thing WHERE id = 1")
        assert [(c.op, c.key, c.new and c.new["name"]) for c in changes("zoo_thing")] == [
            ("INSERT", "1", "a"),
            ("INSERT", "2", "b"),
            ("INSERT", "3", "c"),
            ("INSERT", "4", "d"),
            ("UPDATE", "3", "C"),
            ("DELETE", "1", None),
        ]
        forget()
        with another() as link:
            link.execute("SET session_replication_role = replica")
            link.execute("INSERT INTO zoo_thing VALUES (5, 'e', 2)")
        sql("TRUNCATE zoo_thing")
        assert ops("zoo_thing") == ["INSERT", "TRUNCATE"]


def test_a_row_that_moves_to_another_partition_leaves_and_comes() -> None:
    with thing_table(PARTITIONED):
        sql("INSERT INTO zoo_thing VALUES (1, 'a', 1)")
        forget()
        sql("UPDATE zoo_thing SET size = 15, name = 'moved'")
        deleted, inserted = changes("zoo_thing")
        assert (deleted.op, deleted.old) == ("DELETE", {"id": 1, "name": "a", "size": 1})
        assert (inserted.op, inserted.new) == ("INSERT", {"id": 1, "name": "moved", "size": 15})


def test_a_table_that_others_inherit_from_shows_its_own_rows() -> None:
    with thing_table(PLAIN):
        sql("CREATE TABLE zoo_thing_more (extra int) INHERITS (zoo_thing)")
        assert states("zoo_thing") == {"stale"}
        install.reconcile()
        assert (states("zoo_thing"), levels()["insert"]) == ({"installed"}, "row")
        sql("INSERT INTO zoo_thing_more (name) VALUES ('not captured')")
        sql("INSERT INTO zoo_thing (name) VALUES ('captured')")
        sql("DELETE FROM zoo_thing")
        assert ops("zoo_thing") == ["INSERT", "DELETE"]


def test_a_view_is_not_captured_and_breaks_nothing() -> None:
    view = "CREATE VIEW zoo_thing AS SELECT id, name, 1 AS size FROM zoo_team"
    with thing_table(view, drop="DROP VIEW zoo_thing"):
        assert states("zoo_thing") == set()


@isolate_apps("tests.zoo")
def test_columns_may_be_called_anything_and_be_many() -> None:
    odd = ("moment", "key", "tg_op", "old", "new", "r", "i", "rowcast_new", "select", "a", "n")
    quoted = ("semi;colon", "back\\slash", "it's", "{}", "ümläut", "$rowcast$", "a b")

    fields: dict[str, Any] = {
        f"f{n}": models.IntegerField(null=True, db_column=name)
        for n, name in enumerate((*odd, *quoted))
    }
    fields |= {f"wide{n}": models.DurationField(null=True) for n in range(120)}
    meta = type("Meta", (), {"app_label": "zoo"})
    wide = publish(type("Wide", (models.Model,), {**fields, "__module__": __name__, "Meta": meta}))
    with tables_of(wide):
        names = {column.attname: column.column for column in wide._meta.concrete_fields}
        row = wide._default_manager.create(f0=1, f11=2, f12=3)
        wide._default_manager.update(f1=4)
        row.delete()
        inserted, updated, deleted = changes(wide)
        assert inserted.new is not None and list(inserted.new) == list(names.values())
        assert (inserted.new["moment"], inserted.new["semi;colon"]) == (1, 2)
        assert updated.old == inserted.new
        assert updated.new == deleted.old == {**inserted.new, "key": 4}


@isolate_apps("tests.zoo")
def test_long_names_of_tables_are_kept_apart() -> None:
    def make(name: str) -> type[models.Model]:
        meta = type("Meta", (), {"app_label": "zoo", "db_table": name})
        attributes = {"__module__": __name__, "Meta": meta}
        return publish(type(f"Long{name[-1]}", (models.Model,), attributes))

    one, two = make("t" * 62 + "1"), make("t" * 62 + "2")
    with tables_of(one, two):
        one._default_manager.create()
        assert (ops(one), ops(two)) == (["INSERT"], [])


def test_a_column_computed_on_reading_is_captured_in_every_image() -> None:
    if connection.pg_version < 180000:
        pytest.skip("virtual columns are new in PostgreSQL 18")
    virtual = PLAIN.replace("size int", "seed int, size int GENERATED ALWAYS AS (seed * 2) VIRTUAL")
    with thing_table(virtual):
        sql("INSERT INTO zoo_thing (name, seed) VALUES ('a', 2)")
        sql("UPDATE zoo_thing SET seed = 3")
        sql("DELETE FROM zoo_thing")
        sizes = [(c.old and c.old["size"], c.new and c.new["size"]) for c in changes("zoo_thing")]
        assert sizes == [(None, 4), (4, 6), (6, None)]


def test_a_moment_without_a_zone_is_shown_in_that_of_the_project() -> None:
    column = ColumnInfo("at", "timestamp", Kind.DATETIME)
    given = "'2025-07-01 12:00:00.5+00'::timestamptz"
    cell = values.cell(column, given, "timestamp with time zone", "Europe/Berlin")
    assert sql(f"SELECT {cell}") == [('"2025-07-01T14:00:00.5"',)]


@pytest.mark.usefixtures("wal", "closing_hub")
async def test_subscribers_of_a_table_that_is_emptied_are_told_to_resync(granted: Any) -> None:
    await db(granted, "view_note", using=True)
    await db(granted, "view_team", using=True)
    notes, teams = await Client().connect(), await Client().connect()
    await notes.listen("zoo_note")
    await teams.listen("zoo_team")
    await db(Note.objects.create, title="gone")
    assert (await notes.change())["record"]["title"] == "gone"
    await db(sql, "TRUNCATE zoo_note")
    told = await notes.until(lambda frame: frame[3] == "system")
    assert told[4]["message"] == "resync required"
    await db(Team.objects.create, name="there")
    assert (await teams.change())["record"]["name"] == "there"
    assert not [frame for frame in teams.unread if frame[3] == "system"]
    await db(Note.objects.create, title="next")
    assert (await notes.change())["record"]["title"] == "next"
    await notes.close()
    await teams.close()


@pytest.mark.usefixtures("wal", "closing_hub")
async def test_a_table_in_another_schema_is_subscribed_to_by_that_schema() -> None:
    definition = PLAIN.replace("zoo_thing", "warehouse.thing")
    options = {"db_table": 'warehouse"."thing', "drop": "DROP SCHEMA warehouse CASCADE"}
    scratch = thing_table(f"CREATE SCHEMA warehouse; {definition}", **options)
    await db(scratch.__enter__)
    try:
        claims = {"sub": "job", "role": "service_role", "exp": int(time.time()) + 60}
        client = await Client(token=tokens.sign(claims)).connect()
        await client.listen("thing", schema="warehouse")
        await db(sql, "INSERT INTO warehouse.thing (name) VALUES ('a')")
        change = await client.change()
        assert (change["schema"], change["table"]) == ("warehouse", "thing")
        assert change["record"] == {"id": 1, "name": "a", "size": None}
        await client.close()
    finally:
        await db(scratch.__exit__, None, None, None)
