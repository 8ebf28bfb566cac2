"""Every committed change of a row is in the log once, by any writer and any way of writing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, models, transaction
from django.test.utils import isolate_apps

from realtime import publish
from realtime.models import LogHead
from tests.support.captured_models import changes, forget, ops, tables_of
from tests.support.vendors import on_sqlite
from tests.zoo.models import Member, Note, Specimen, Team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def empty_log(db: Any) -> None:
    forget()


def sql(statement: str, *params: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


def test_a_save_is_captured_with_both_images() -> None:
    note = Note.objects.create(title="first")
    note.title = "second"
    note.save()
    key = str(note.pk)
    note.delete()
    inserted, updated, deleted = changes(Note)
    assert (inserted.op, inserted.key, inserted.old) == ("INSERT", key, None)
    assert inserted.new is not None and inserted.new["title"] == "first"
    assert updated.old == inserted.new
    assert updated.new == {**inserted.new, "title": "second"}
    assert (deleted.op, deleted.key, deleted.old, deleted.new) == ("DELETE", key, updated.new, None)


def test_bulk_writes_are_captured_row_by_row() -> None:
    Note.objects.bulk_create([Note(title=f"note {n}") for n in range(300)])
    assert ops(Note) == ["INSERT"] * 300
    forget()
    Note.objects.update(score=1)
    assert ops(Note) == ["UPDATE"] * 300
    forget()
    notes = list(Note.objects.all())
    for note in notes:
        note.title = "again"
    Note.objects.bulk_update(notes, ["title"])
    assert ops(Note) == ["UPDATE"] * 300
    forget()
    Note.objects.all().delete()
    assert ops(Note) == ["DELETE"] * 300


def test_raw_sql_is_captured() -> None:
    sql("INSERT INTO zoo_team (name) VALUES ('a'), ('b')")
    sql("UPDATE zoo_team SET name = name || '!' WHERE name = 'a'")
    sql("DELETE FROM zoo_team")
    assert ops(Team) == ["INSERT", "INSERT", "UPDATE", "DELETE", "DELETE"]


@on_sqlite
def test_insert_or_replace_is_a_delete_and_an_insert() -> None:
    team = Team.objects.create(name="old")
    forget()
    sql("INSERT OR REPLACE INTO zoo_team (id, name) VALUES (%s, 'new')", team.pk)
    deleted, inserted = changes(Team)
    assert (deleted.op, deleted.old) == ("DELETE", {"id": team.pk, "name": "old"})
    assert (inserted.op, inserted.new) == ("INSERT", {"id": team.pk, "name": "new"})


def test_an_upsert_is_an_update_where_the_row_exists() -> None:
    team = Team.objects.create(name="old")
    forget()
    Team.objects.bulk_create(
        [Team(pk=team.pk, name="new"), Team(pk=team.pk + 1, name="other")],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["name"],
    )
    assert ops(Team) == ["UPDATE", "INSERT"]


def test_an_ignored_insert_is_not_captured() -> None:
    team = Team.objects.create(name="old")
    forget()
    Team.objects.bulk_create([Team(pk=team.pk, name="new")], ignore_conflicts=True)
    assert changes(Team) == []


def test_a_cascade_of_the_orm_is_captured() -> None:
    team = Team.objects.create(name="doomed")
    Note.objects.create(title="in it", team=team)
    forget()
    team.delete()
    assert (ops(Note), ops(Team)) == (["DELETE"], ["DELETE"])


def test_setting_null_on_delete_is_captured() -> None:
    user = get_user_model().objects.create_user("owner")
    Specimen.objects.create(owner=user)
    forget()
    user.delete()
    (change,) = changes(Specimen)
    assert change.new is not None
    assert (change.op, change.new["owner_id"]) == ("UPDATE", None)


def test_a_changed_key_shows_the_old_and_the_new_one() -> None:
    team = Team.objects.create(name="a")
    forget()
    Team.objects.filter(pk=team.pk).update(id=team.pk + 1000)
    (change,) = changes(Team)
    assert change.old is not None and change.new is not None
    assert (change.old["id"], change.new["id"]) == (team.pk, team.pk + 1000)


def test_what_is_rolled_back_to_a_savepoint_is_not_in_the_log() -> None:
    with transaction.atomic():
        Team.objects.create(name="kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Team.objects.create(name="lost")
            raise ZeroDivisionError
    assert [change.new["name"] for change in changes(Team) if change.new] == ["kept"]


def test_a_rejected_statement_leaves_nothing_in_the_log() -> None:
    team = Team.objects.create(name="a")
    forget()
    with pytest.raises(Exception, match=r"(?i)unique"), transaction.atomic():
        Team.objects.bulk_create([Team(name="b"), Team(pk=team.pk, name="c")])
    assert changes(Team) == []


def test_an_unpublished_table_is_not_captured() -> None:
    user = get_user_model().objects.create_user("u")
    Member.objects.create(user=user, team=Team.objects.create(name="t"))
    assert changes(Member) == []


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_in_the_log() -> None:
    forget()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Team.objects.create(name="lost")
        Note.objects.bulk_create([Note(title="lost too")])
        raise ZeroDivisionError
    assert changes(Team) == changes(Note) == []


@pytest.mark.django_db(transaction=True)
def test_another_program_is_captured_too() -> None:
    forget()
    subprocess.run([sys.executable, "-c", *_other_program()], check=True)
    assert [change.new["name"] for change in changes(Team) if change.new] == ["elsewhere"]


def _other_program() -> tuple[str, str]:
    """Python that writes one row and undoes another, without Django; and its argument."""
    write = (
        "db.execute(\"INSERT INTO zoo_team (name) VALUES ('elsewhere')\")\n"
        "db.commit()\n"
        "db.execute(\"INSERT INTO zoo_team (name) VALUES ('undone')\")\n"
        "db.rollback()\n"
    )
    if connection.vendor == "sqlite":
        connect = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=20)\n"
        return connect + write, str(connection.settings_dict["NAME"])
    import psycopg.conninfo

    parameters = connection.get_connection_params()
    known = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
    connect = "import psycopg, sys\ndb = psycopg.connect(sys.argv[1])\n"
    return connect + write, psycopg.conninfo.make_conninfo(**known)


@pytest.mark.django_db(transaction=True)
@isolate_apps("tests.zoo")
def test_a_cascade_of_the_database_is_captured() -> None:
    @publish
    class Root(models.Model):
        class Meta:
            app_label = "zoo"

    @publish
    class Leaf(models.Model):
        root_id = models.IntegerField(null=True)

        class Meta:
            app_label = "zoo"

    with tables_of(Root, Leaf):
        # As a database not made by Django would have it, and a table that refers to itself.
        sql("DROP TABLE zoo_leaf")
        key = "INTEGER" if connection.vendor == "sqlite" else "BIGINT"
        sql(
            f"CREATE TABLE zoo_leaf (id {key} PRIMARY KEY, root_id {key}"
            " REFERENCES zoo_root ON DELETE CASCADE ON UPDATE CASCADE,"
            f" above {key} REFERENCES zoo_leaf ON DELETE CASCADE)"
        )
        from realtime.wal import triggers

        triggers.reconcile()
        sql("INSERT INTO zoo_root VALUES (1)")
        sql("INSERT INTO zoo_leaf VALUES (1, 1, NULL), (2, NULL, 1), (3, NULL, 2)")
        sql("UPDATE zoo_root SET id = 7")
        assert ops("zoo_leaf") == ["INSERT"] * 3 + ["UPDATE"]
        forget()
        sql("DELETE FROM zoo_root")
        assert ops("zoo_root") == ["DELETE"]
        assert sorted(c.key for c in changes("zoo_leaf") if c.op == "DELETE") == ["1", "2", "3"]


@pytest.mark.django_db(transaction=True)
def test_the_log_has_a_head_from_the_first_migration_on() -> None:
    head = LogHead.objects.get()
    assert (len(head.epoch), head.seq) == (32, 0)
