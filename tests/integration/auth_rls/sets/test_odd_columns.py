"""Selects from columns that hold something else than their field says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Select, Test
from auth_rls.sets.reader import read_many, read_members, read_set
from auth_rls.sql import stored_types
from auth_rls.sql.compile import condition
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def odd(declared: str, field: models.Field, *values: str) -> Iterator[None]:
    """A table `zoo_odd` whose column `size` is declared so, behind this field."""
    options = {"app_label": "zoo", "db_table": "zoo_odd", "managed": False}
    body: dict[str, Any] = {"size": field, "__module__": "tests.zoo.models"}
    type("Odd", (models.Model,), body | {"Meta": type("Meta", (), options)})
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE zoo_odd (id integer primary key, size {declared})")
        for number, value in enumerate(values):
            cursor.execute("INSERT INTO zoo_odd VALUES (%s, %s)", [number, value])
    stored_types.forget()
    stored_types.look([connection.alias])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE zoo_odd")
        apps.all_models["zoo"].pop("odd")
        apps.clear_cache()
        stored_types.forget()


def chosen(column: str, select: Select) -> bool:
    """Whether SQL takes the note for one whose column is in the set."""
    return Note.objects.filter(condition(Test(column, "in", select), Note)).exists()


def check(column: str, kind: Kind) -> set[object]:
    select = Select("zoo.Odd", "size", TRUE, "", kind)
    members = set(read_members(select, connection.alias))
    assert members == set(read_many([select], connection.alias)[select]) == read_set(select)
    assert chosen(column, select) is bool(members)
    return members


@on_sqlite
@pytest.mark.parametrize(
    "column, kind, field, values",
    [
        ("score", Kind.INT, models.IntegerField(null=True), ("5", "x")),
        ("is_public", Kind.BOOL, models.BooleanField(null=True), ("1", "t")),
        (
            "price",
            Kind.DECIMAL,
            models.DecimalField(max_digits=5, decimal_places=2, null=True),
            ("5", "5.00", "x"),
        ),
    ],
)
def test_a_text_in_a_column_of_another_kind_is_no_member(
    column: str, kind: Kind, field: models.Field, values: tuple[str, ...]
) -> None:
    Note.objects.create(score=5, is_public=True, price=5)
    with odd("text", field.clone(), *values):
        assert check(column, kind) == set()


@on_postgresql
def test_the_spaces_that_a_char_is_filled_with_belong_to_no_member() -> None:
    Note.objects.create(title="secret")
    with odd("char(10)", models.CharField(max_length=10), "secret"):
        assert check("title", Kind.TEXT) == {"secret"}
