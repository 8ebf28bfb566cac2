"""The log alone is enough: replaying old and new images rebuilds the table, whatever happened."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from tests.support.captured_models import changes, forget
from tests.zoo.models import Team

# Few keys, so that they are used again after a delete, replaced and exchanged.
KEYS = st.integers(1, 4)
NAMES = st.text('abc"\\é', max_size=3)
SQLITE = (
    st.tuples(st.just("INSERT OR REPLACE INTO zoo_team (id, name) VALUES (%s, %s)"), KEYS, NAMES),
    st.tuples(st.just("UPDATE OR REPLACE zoo_team SET id = %s WHERE id = %s"), KEYS, KEYS),
)
POSTGRESQL = (
    # One statement that deletes a row and makes a new one of its key, having read all it deletes
    # or only a part.
    st.tuples(
        st.just(
            "WITH gone AS (DELETE FROM zoo_team WHERE id >= %s RETURNING id, name)"
            " INSERT INTO zoo_team (id, name) SELECT id, name || %s FROM gone"
        ),
        KEYS,
        NAMES,
    ),
    st.tuples(
        st.just(
            "WITH gone AS (DELETE FROM zoo_team WHERE id >= %s RETURNING id, name)"
            " INSERT INTO zoo_team (id, name) SELECT id, name || %s FROM gone LIMIT 1"
        ),
        KEYS,
        NAMES,
    ),
    st.tuples(
        st.just(
            "MERGE INTO zoo_team AS t USING (VALUES (%s, %s), (9, 'z')) AS s (id, name)"
            " ON t.id = s.id WHEN MATCHED AND t.name = s.name THEN DELETE"
            " WHEN MATCHED THEN UPDATE SET name = s.name"
            " WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)"
        ),
        KEYS,
        NAMES,
    ),
    st.tuples(st.just("TRUNCATE zoo_team CASCADE")),
)
STEPS = st.one_of(
    st.tuples(st.just("INSERT INTO zoo_team (id, name) VALUES (%s, %s)"), KEYS, NAMES),
    st.tuples(
        st.just(
            "INSERT INTO zoo_team (id, name) VALUES (%s, %s)"
            " ON CONFLICT (id) DO UPDATE SET name = zoo_team.name || excluded.name"
        ),
        KEYS,
        NAMES,
    ),
    st.tuples(st.just("UPDATE zoo_team SET id = %s WHERE id = %s"), KEYS, KEYS),
    st.tuples(st.just("UPDATE zoo_team SET name = %s WHERE id >= %s"), NAMES, KEYS),
    st.tuples(st.just("DELETE FROM zoo_team WHERE id BETWEEN %s AND %s"), KEYS, KEYS),
    *(SQLITE if connection.vendor == "sqlite" else POSTGRESQL),
)
HISTORIES = st.lists(st.tuples(st.lists(STEPS, max_size=4), st.booleans()), max_size=12)


class Undone(Exception):
    pass


def run(statements: list[tuple[Any, ...]], keep: bool) -> None:
    try:
        with transaction.atomic():
            for statement, *params in statements:
                if statement.startswith("MERGE") and connection.pg_version < 150000:
                    continue
                if statement.startswith("TRUNCATE"):
                    # Which PostgreSQL refuses while foreign keys wait to be checked.
                    connection.check_constraints()
                with connection.cursor() as cursor:
                    cursor.execute(statement, params)
            if not keep:
                raise Undone
    except (Undone, transaction.TransactionManagementError):
        pass
    except Exception as error:
        # A key that is taken undoes the whole transaction, its captured part too.
        assert "unique constraint" in str(error).lower()


def replayed() -> dict[int, dict[str, Any]]:
    """The table as the log tells it. Every image is checked against what came before."""
    rows: dict[int, dict[str, Any]] = {}
    for change in changes(Team):
        if change.op == "TRUNCATE":
            rows.clear()
        if change.old is not None:
            assert rows.pop(change.old["id"]) == change.old
        if change.new is not None:
            assert change.new["id"] not in rows
            rows[change.new["id"]] = change.new
    return rows


@pytest.mark.slow
class Replay(TestCase):
    @settings(max_examples=200, deadline=None)
    @given(HISTORIES)
    def test_replaying_the_log_rebuilds_the_table(
        self, history: list[tuple[list[tuple[Any, ...]], bool]]
    ) -> None:
        forget()
        for statements, keep in history:
            run(statements, keep)
        assert replayed() == {row["id"]: row for row in Team.objects.values("id", "name")}


@pytest.mark.django_db
def test_exchanging_two_keys_is_replayed_in_the_order_it_happened() -> None:
    forget()
    Team.objects.bulk_create([Team(pk=1, name="one"), Team(pk=2, name="two")])
    for old, new in ((1, 3), (2, 1), (3, 2)):
        Team.objects.filter(pk=old).update(id=new)
    assert replayed() == {1: {"id": 1, "name": "two"}, 2: {"id": 2, "name": "one"}}
