"""Capture where PostgreSQL has more to offer than SQLite: schemas, partitions, TRUNCATE, other
triggers, other roles, tables that change under a running program."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection, models, transaction
from django.test.utils import isolate_apps

from auth_rls.predicates.kinds import Kind
from auth_rls.subjects import tokens
from realtime import publish
from realtime.event_log import sequencer
from realtime.event_log.table import read_entries
from realtime.models import WalEntry
from realtime.wal import published
from realtime.wal import triggers as install
from realtime.wal.catalog import State
from realtime.wal.entry import ColumnInfo
from realtime.wal.head import read_head
from realtime.wal.postgresql import triggers as postgresql
from realtime.wal.postgresql import values
from realtime.wal.postgresql.catalog import Patience, PostgresqlCatalog
from tests.support.captured_models import (
    cells,
    changes,
    forget,
    ops,
    recorded,
    states,
    tables_of,
    texts,
    withdraw,
)
from tests.support.socket_client import Client, db
from tests.support.vendors import on_postgresql
from tests.support.waiting import until
from tests.zoo.models import Note, Specimen, Team

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]


def sql(statement: str, *params: object) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def another() -> Iterator[psycopg.Connection[Any]]:
    """A connection of another program, in autocommit."""
    parameters = connection.get_connection_params()
    known = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
    with psycopg.connect(**known, autocommit=True) as link:
        yield link


@pytest.fixture(autouse=True)
def empty_log(transactional_db: None) -> None:
    forget()


@contextmanager
def thing_table(definition: str, **options: Any) -> Iterator[type[models.Model]]:
    """A table `zoo_thing` made by SQL, behind a published model of id, name and size."""
    with isolate_apps("tests.zoo"):

        @publish
        class Thing(models.Model):
            name = models.TextField(null=True)
            size = models.IntegerField(null=True)

            class Meta:
                app_label = "zoo"
                managed = False
                db_table = options.get("db_table", "zoo_thing")

        try:
            sql(definition)
            install.reconcile()
            forget()
            yield Thing
        finally:
            withdraw(Thing)
            sql(options.get("drop", "DROP TABLE zoo_thing CASCADE"))
            install.reconcile()


PLAIN = "CREATE TABLE zoo_thing (id bigserial PRIMARY KEY, name text, size int)"


def levels(table: str = "zoo_thing") -> dict[str, str]:
    rows = sql(
        "SELECT tgname, CASE WHEN tgtype & 1 = 1 THEN 'row' ELSE 'statement' END FROM pg_trigger"
        " WHERE tgrelid = %s::regclass AND starts_with(tgname, %s)",
        table,
        postgresql.PREFIX,
    )
    return {name.removeprefix(postgresql.PREFIX): level for name, level in rows}


# --- what is captured ---------------------------------------------------------------------------


def test_inserts_are_captured_by_statement_and_the_rest_row_by_row() -> None:
    assert levels("zoo_team") == {
        "insert": "statement",
        "update": "row",
        "delete": "row",
        "truncate": "statement",
    }


def test_a_bulk_insert_is_in_the_log_in_the_order_of_its_rows() -> None:
    sql("INSERT INTO zoo_team (id, name) SELECT 1000 - g, 'n' || g FROM generate_series(1, 500) g")
    assert [change.key for change in changes(Team)] == [str(1000 - g) for g in range(1, 501)]


def test_copy_is_captured() -> None:
    into = "COPY zoo_team (id, name) FROM STDIN"
    with another() as link, link.cursor() as cursor, cursor.copy(into) as copy:
        for key in (7, 8):
            copy.write_row((key, "copied"))
    assert [change.key for change in changes(Team)] == ["7", "8"]


def test_truncate_is_an_entry_without_images_for_every_table_it_empties() -> None:
    team = Team.objects.create(name="a")
    Note.objects.create(title="n", team=team)
    forget()
    sql("TRUNCATE zoo_team CASCADE")
    assert texts(Team) == texts(Note) == [("TRUNCATE", None, None)]
    sequencer.number(connection)
    head = read_head(connection)
    rows = read_entries(connection, 0, head.seq)
    assert {(row.op, row.old, row.new) for row in rows} == {("TRUNCATE", None, None)}


def test_a_merge_is_captured_row_by_row() -> None:
    if connection.pg_version < 150000:
        pytest.skip("MERGE is new in PostgreSQL 15")
    Team.objects.bulk_create([Team(pk=1, name="a"), Team(pk=2, name="b")])
    forget()
    sql(
        "MERGE INTO zoo_team AS t USING (VALUES (1, ''), (2, 'B'), (3, 'c')) AS s (id, name)"
        " ON t.id = s.id WHEN MATCHED AND s.name = '' THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET name = s.name"
        " WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)"
    )
    assert sorted((c.op, c.key) for c in changes(Team)) == [
        ("DELETE", "1"),
        ("INSERT", "3"),
        ("UPDATE", "2"),
    ]


def test_a_large_value_is_complete_in_both_images_also_where_it_did_not_change() -> None:
    large = "".join(f"{n:x}" for n in range(400_000))
    specimen = Specimen.objects.create(text=large, binary=large.encode())
    forget()
    Specimen.objects.filter(pk=specimen.pk).update(small=1)
    (change,) = changes(Specimen)
    for image in (change.old, change.new):
        assert image is not None
        assert image["text"] == large
        assert image["binary"] == large.encode().hex()


def test_a_replica_s_writes_are_captured() -> None:
    with another() as link:
        link.execute("SET session_replication_role = replica")
        link.execute("INSERT INTO zoo_team (id, name) VALUES (1, 'a')")
        link.execute("UPDATE zoo_team SET name = 'b'")
        link.execute("DELETE FROM zoo_team")
        link.execute("TRUNCATE zoo_team CASCADE")
    assert ops(Team) == ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]


def test_a_transaction_s_entries_carry_its_id_savepoints_or_not() -> None:
    with transaction.atomic():
        Team.objects.create(name="a")
        with transaction.atomic():
            Team.objects.create(name="b")
            Team.objects.filter(name="a").delete()
        sql("TRUNCATE zoo_specimen")
    Team.objects.create(name="c")
    first, *others, last = WalEntry.objects.order_by("id").values_list("txid", flat=True)
    assert first is not None and last not in (None, first)
    assert others == [first] * 3


def test_a_statement_that_concerns_no_row_leaves_no_trace() -> None:
    with transaction.atomic():
        sql("INSERT INTO zoo_team (name) SELECT 'a' WHERE false")
        sql("DELETE FROM zoo_team WHERE id < 0")
        assert sql("SELECT pg_current_xact_id_if_assigned()") == [(None,)]
    assert changes(Team) == []


def test_who_waited_for_a_row_comes_after_who_had_it() -> None:
    team = Team.objects.create(name="a")
    forget()
    with another() as first, another() as second:
        first.autocommit = second.autocommit = False
        first.execute("UPDATE zoo_team SET name = name || '1'")
        # It draws its first id now, and the one for the row when the row is free.
        second.execute("INSERT INTO zoo_team (id, name) VALUES (9999, 'other')")
        waiting = threading.Thread(
            target=lambda: second.execute("UPDATE zoo_team SET name = name || '2' WHERE id < 9999")
        )
        waiting.start()
        until(
            lambda: sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
            "the second writer waits",
        )
        first.execute("INSERT INTO zoo_team (id, name) VALUES (9998, 'more')")
        first.commit()
        waiting.join()
        second.commit()
    while sequencer.number(connection):
        pass
    mine = WalEntry.objects.filter(pk_text=str(team.pk)).order_by("seq")
    assert [cells(entry.new or "")["name"] for entry in mine] == ['"a1"', '"a12"']


# --- tables of every sort -----------------------------------------------------------------------


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


# --- subscribers --------------------------------------------------------------------------------


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


# --- other triggers -----------------------------------------------------------------------------

TOUCH = """
CREATE FUNCTION zoo_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE zoo_thing SET size = coalesce(size, 0) + 1 WHERE size IS NULL;
    RETURN NULL;
END$$
"""


@pytest.fixture
def touch() -> Iterator[None]:
    sql(TOUCH)
    yield
    sql("DROP FUNCTION zoo_touch CASCADE")


@pytest.mark.usefixtures("touch")
@pytest.mark.parametrize("each", ["ROW", "STATEMENT"])
def test_what_another_trigger_does_to_a_row_comes_after_what_set_it_off(each: str) -> None:
    with thing_table(PLAIN):
        sql(
            f"CREATE TRIGGER a_first AFTER INSERT ON zoo_thing FOR EACH {each}"
            " EXECUTE FUNCTION zoo_touch()"
        )
        install.reconcile()
        assert levels()["insert"] == each.lower()
        sql("INSERT INTO zoo_thing (id, name) VALUES (1, 'a')")
        assert [(c.op, c.new and c.new["size"]) for c in changes("zoo_thing")] == [
            ("INSERT", None),
            ("UPDATE", 1),
        ]
        sql("DROP TRIGGER a_first ON zoo_thing")
        install.reconcile()
        assert levels()["insert"] == "statement"


def test_a_delete_and_an_insert_of_one_key_in_one_statement_keep_their_order() -> None:
    Team.objects.bulk_create([Team(pk=pk, name=str(pk)) for pk in (1, 2, 3)])
    forget()
    sql(
        "WITH gone AS (DELETE FROM zoo_team RETURNING id, name)"
        " INSERT INTO zoo_team SELECT id, name || '!' FROM gone LIMIT 1"
    )
    of_first = [c.op for c in changes(Team) if c.key == "1"]
    assert of_first == ["DELETE", "INSERT"]
    assert ops(Team).count("DELETE") == 3


# --- other roles --------------------------------------------------------------------------------


@pytest.fixture
def role() -> Iterator[str]:
    sql("DROP ROLE IF EXISTS zoo_clerk")
    sql("CREATE ROLE zoo_clerk")
    sql("GRANT SELECT, INSERT, UPDATE, DELETE ON zoo_team TO zoo_clerk")
    sql("GRANT USAGE ON SEQUENCE zoo_team_id_seq TO zoo_clerk")
    sql("GRANT CREATE ON SCHEMA public TO zoo_clerk")
    yield "zoo_clerk"
    sql("DROP OWNED BY zoo_clerk CASCADE")
    sql("DROP ROLE zoo_clerk")


def test_a_writer_needs_no_rights_on_the_log(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("INSERT INTO zoo_team (name) VALUES ('a')")
        link.execute("UPDATE zoo_team SET name = 'b'")
        link.execute("DELETE FROM zoo_team")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute("SELECT * FROM realtime_wal")
    assert ops(Team) == ["INSERT", "UPDATE", "DELETE"]


def test_nobody_else_can_write_to_the_log_through_our_functions(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("CREATE TABLE forged (id bigint, name text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute(
                "CREATE TRIGGER t AFTER INSERT ON forged FOR EACH ROW"
                " EXECUTE FUNCTION rowcast_zoo_team()"
            )


def test_a_writer_s_search_path_leads_the_triggers_nowhere_else(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("CREATE TEMP TABLE realtime_wal (LIKE zoo_team)")
        link.execute(
            "CREATE FUNCTION public.to_json(bigint) RETURNS json LANGUAGE sql"
            " AS $$SELECT '0'::json$$"
        )
        link.execute("SET search_path = pg_temp, public, pg_catalog")
        link.execute("INSERT INTO zoo_team (id, name) VALUES (77, 'a')")
    assert texts(Team) == [("INSERT", None, '{"id":77,"name":"a"}')]


# --- tables that change -------------------------------------------------------------------------

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


# --- installing ---------------------------------------------------------------------------------


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
    errors: list[DatabaseError] = []

    def run() -> None:
        try:
            install.reconcile()
        except DatabaseError as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {trigger.state for trigger in install.status()} == {State.INSTALLED}
