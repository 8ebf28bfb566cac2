"""Tables and columns may be called as anything the capture triggers and the queries of the log use
themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, models
from django.db.models import F
from django.test.utils import isolate_apps

from realtime import publish
from tests.support.captured_models import changes, forget, tables_of

pytestmark = pytest.mark.django_db(transaction=True)

# Variables of plpgsql, aliases, keywords of triggers, columns of the log, names of annotations.
NAMES = (
    *("rowcast_op", "rowcast_us", "rowcast_before", "rowcast_after", "rowcast_key"),
    *("op", "us", "before", "after", "key", "value", "rowcast", "rowcast_new", "rowcast_row"),
    *("r", "e", "s", "t", "n", "a", "m", "k", "power", "sign", "new", "old", "tg_op", "tg_level"),
    *("found", "sqlstate", "sqlerrm", "seq", "txid", "actor", "relation_id", "captured_us"),
    *("rowcast_image", "rowcast_was", "rowcast_now", "table_name", "rowid", "excluded", "ctid_"),
)
TABLES = ("rowcast", "rowcast_new", "r", "old", "new", "e", "t", "s", "backlog", "numbered")


@contextmanager
def oddly_named(table: str, columns: tuple[str, ...], **options: object) -> Iterator[type]:
    """A published model whose columns are called so, each an integer."""
    with isolate_apps("tests.zoo"):
        fields: dict[str, object] = {
            f"f{place}": models.IntegerField(db_column=name, default=place)
            for place, name in enumerate(columns)
        }
        fields["span"] = models.DurationField(null=True)
        fields["weight"] = models.FloatField(default=0.5)
        fields["doubled"] = models.GeneratedField(
            expression=F("f0") * 2, output_field=models.IntegerField(), db_persist=True
        )
        meta = type("Meta", (), {"app_label": "zoo", "db_table": table})
        model = type("Odd", (models.Model,), {**fields, "__module__": __name__, "Meta": meta})
        publish(model, **options)
        with tables_of(model):
            forget()
            yield model


def check_captured(model: type[models.Model], columns: tuple[str, ...]) -> None:
    model._default_manager.create()
    model._default_manager.bulk_create([model() for _ in range(3)])
    model._default_manager.filter(pk=1).update(f0=100)
    model._default_manager.filter(pk=1).delete()
    found = changes(model)
    assert [change.op for change in found] == ["INSERT"] * 4 + ["UPDATE", "DELETE"]
    assert [change.key for change in found] == ["1", "2", "3", "4", "1", "1"]
    values = {name: place for place, name in enumerate(columns)}
    for change in found[:4]:
        assert change.new is not None
        assert {name: change.new[name] for name in columns} == values
    last = found[-1].old
    assert last is not None
    assert (last[columns[0]], last["doubled"]) == (100, 200)


def test_columns_may_be_called_as_what_a_trigger_says_itself() -> None:
    with oddly_named("zoo_odd", NAMES) as model:
        check_captured(model, NAMES)


@pytest.mark.parametrize("first", ["op", "rowcast_op", "r", "new", "rowcast"])
def test_a_column_that_is_computed_from_such_a_column_has_its_value(first: str) -> None:
    columns = (first, *(name for name in NAMES if name != first))
    with oddly_named("zoo_odd", columns) as model:
        check_captured(model, columns)


def test_the_same_where_only_some_columns_are_published() -> None:
    with oddly_named("zoo_odd", NAMES, exclude=["f1"]) as model:
        shown = tuple(name for name in NAMES if name != "rowcast_us")
        model._default_manager.create()
        model._default_manager.update(f1=7)
        model._default_manager.update(f2=7)
        inserted, updated = changes(model)
        assert inserted.new is not None and updated.new is not None
        assert set(shown) <= set(inserted.new)
        assert updated.new["rowcast_before"] == 7


def test_a_row_with_such_columns_is_captured_also_where_its_table_has_changed() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a column cannot go while a trigger names it")
    with oddly_named("zoo_odd", NAMES) as model, connection.cursor() as cursor:
        cursor.execute('ALTER TABLE zoo_odd DROP COLUMN "txid"')
        names = [name for name in NAMES if name != "txid"]
        marks = ", ".join(f'"{name}"' for name in names)
        given = ", ".join(str(NAMES.index(name)) for name in names)
        insert = f"INSERT INTO zoo_odd ({marks}, weight) VALUES ({given}, 1)"
        cursor.execute(insert)
        cursor.execute('UPDATE zoo_odd SET "op" = 50')
        cursor.execute("DELETE FROM zoo_odd")
        found = changes(model)
        cursor.execute('ALTER TABLE zoo_odd ADD COLUMN "txid" integer')
    assert [change.op for change in found] == ["INSERT", "UPDATE", "DELETE"]
    assert [change.key for change in found] == ["1", "1", "1"]
    old = found[-1].old
    assert old is not None
    assert (old["op"], old["r"], "txid" in old) == (50, NAMES.index("r"), False)


@pytest.mark.parametrize("table", TABLES)
def test_tables_may_be_called_as_what_a_trigger_says_itself(table: str) -> None:
    with oddly_named(table, NAMES) as model:
        check_captured(model, NAMES)
