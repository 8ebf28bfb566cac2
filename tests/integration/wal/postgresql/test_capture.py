"""Capture where PostgreSQL has more to offer than SQLite: schemas, partitions, TRUNCATE, other
triggers, other roles, tables that change under a running program."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from realtime.event_log import sequencer
from realtime.event_log.table import read_entries
from realtime.models import WalEntry
from realtime.wal import triggers as install
from realtime.wal.head import read_head
from tests.support.captured_models import (
    cells,
    changes,
    forget,
    ops,
    texts,
)
from tests.support.log import number_all
from tests.support.postgresql_tables import PLAIN, another, levels, sql, thing_table
from tests.support.vendors import on_postgresql
from tests.support.waiting import until
from tests.zoo.models import Note, Specimen, Team

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def empty_log(transactional_db: None) -> None:
    forget()


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
    number_all()
    mine = WalEntry.objects.filter(pk_text=str(team.pk)).order_by("seq")
    assert [cells(entry.new or "")["name"] for entry in mine] == ['"a1"', '"a12"']


# --- tables of every sort -----------------------------------------------------------------------


# --- subscribers --------------------------------------------------------------------------------


# --- other triggers -----------------------------------------------------------------------------


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


# --- tables that change -------------------------------------------------------------------------


# --- installing ---------------------------------------------------------------------------------
