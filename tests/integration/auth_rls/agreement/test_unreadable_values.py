"""Values of PostgreSQL that Python does not have: infinite dates, years before 1, 24:00, addresses
with a mask. To the stream, to SQL and to exported policies they are alike unknown."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.parse import parse
from auth_rls.predicates.predicate import Not, Predicate, Select, Test
from auth_rls.sql.columns import columns_of, schema_of
from auth_rls.sql.compile import condition
from realtime.event_log.event import RowImage
from realtime.util.utf8 import repaired
from tests.support.exports import export, run
from tests.support.policies import policy
from tests.support.row_security import CLIENT
from tests.support.vendors import on_postgresql
from tests.zoo.models import Specimen

pytestmark = [pytest.mark.django_db, on_postgresql]

DAYS = ["infinity", "-infinity", "0044-03-15 BC", "12026-01-01", "2026-01-01", "0001-01-01"]
LAST = "9999-12-31 23:59:59.999999+00"
VALUES = {
    "date": [*DAYS, "9999-12-31"],
    "moment": [*DAYS, "0001-01-01 00:00+00", LAST],
    "time": ["24:00", "23:59:59.999999", "10:00"],
    "duration": ["1000000000 days", "-1000000000 days", "30 days", "1 month", "-999999999 days"],
    "inet": ["10.0.0.1/24", "10.0.0.0/8", "::1/64", "10.0.0.1", "::1", "::ffff:10.0.0.1"],
    "real": ["NaN", "Infinity", "1"],
    "decimal": ["NaN", "1"],
}
LITERALS = {
    "date": ["2026-01-01", "9999-12-31"],
    "moment": ["2026-01-01", LAST],
    "time": ["10:00", "23:59:59.999999"],
    "duration": ["P0D", "P30D"],
    "inet": ["10.0.0.1", "::1"],
    "real": [0, 1],
    "decimal": [0, 1],
}


def stored(column: str) -> dict[int, RowImage]:
    """A row for each value and one with NULL, as the triggers wrote them, by key."""
    kinds = {name: found.kind for name, found in columns_of(Specimen).items()}
    found = {}
    with connection.cursor() as cursor:
        for value in (*VALUES[column], None):
            cursor.execute(f"INSERT INTO zoo_specimen ({column}) VALUES (%s) RETURNING id", [value])
            (key,) = cursor.fetchone()
            cursor.execute("SELECT new::text FROM realtime_wal ORDER BY id DESC LIMIT 1")
            (image,) = cursor.fetchone()
            found[key] = RowImage(repaired(image.encode()), kinds)
    return found


def comparisons(column: str) -> list[Any]:
    """A policy with each operator that the column has."""
    low, high = LITERALS[column]
    ops: dict[str, Any] = {"": high, "__in": [low, high], "__isnull": True}
    if column != "inet":
        ops |= {"__gt": low, "__gte": high, "__lt": high, "__lte": low, "__range": [low, high]}
    found = [{f"{column}{op}": value} for op, value in ops.items()]
    return [*found, *({"not": one} for one in found), {f"{column}__isnull": False}]


def by_sql(predicate: Predicate) -> set[int]:
    return set(Specimen.objects.filter(condition(predicate, Specimen)).values_list("pk", flat=True))


@pytest.mark.parametrize("column", VALUES)
def test_the_stream_and_sql_judge_them_alike(column: str) -> None:
    rows = stored(column)
    schema = schema_of(Specimen)
    asked = [parse(json, schema, lambda label: schema) for json in comparisons(column)]
    distinct = [Test(column, "isdistinct", None), Test(column, "isdistinct", asked[0].value)]
    for predicate in (*asked, *distinct, *map(Not, distinct)):
        match = matcher(predicate)
        by_stream = {key for key, image in rows.items() if match(image) is True}
        assert by_sql(predicate) == by_stream, predicate


@pytest.mark.parametrize("column", VALUES)
def test_behind_a_select_they_are_in_no_set(column: str) -> None:
    rows = stored(column)
    kind = columns_of(Specimen)[column].kind
    for key, image in rows.items():
        select = Select("zoo.Specimen", column, Test("id", "exact", key), "", kind)
        member = image.get(column)
        members = [] if member is None else [member]
        for predicate in (Test(column, "in", select), Not(Test(column, "in", select))):
            match = matcher(predicate, lambda _: members)  # noqa: B023
            by_stream = {other for other, its in rows.items() if match(its) is True}
            assert by_sql(predicate) == by_stream, predicate


@pytest.mark.usefixtures("nothing_declared")
@pytest.mark.parametrize("column", VALUES)
def test_exported_policies_judge_them_alike(column: str) -> None:
    rows = stored(column)
    run("SET CONSTRAINTS ALL IMMEDIATE")
    run(f"DO $$ BEGIN CREATE ROLE {CLIENT} NOLOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    run(f"GRANT SELECT ON zoo_specimen TO {CLIENT}")
    shown = policy(True, on="zoo.view_specimen")
    schema = schema_of(Specimen)
    for json in comparisons(column):
        shown.using = json
        shown.save_base(raw=True)
        export("--apply")
        match = matcher(parse(json, schema, lambda label: schema))
        with connection.cursor() as cursor:
            cursor.execute("""SELECT set_config('request.jwt.claims', '{"role": "anon"}', true)""")
            cursor.execute(f"SET LOCAL ROLE {CLIENT}")
            cursor.execute("SELECT id FROM zoo_specimen")
            by_policy = {key for (key,) in cursor.fetchall()}
            cursor.execute("RESET ROLE")
        assert by_policy == {key for key, image in rows.items() if match(image) is True}, json
