"""INSERT by statement and by row: both write the same history of each row, whatever one statement
or transaction does to it."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from django.db import DatabaseError, connection, transaction

from realtime.models import WalEntry
from realtime.wal import triggers as install
from tests.support import specimens
from tests.support.captured_models import changes, forget, texts
from tests.support.postgresql_tables import PLAIN, levels, sql, thing_table
from tests.support.vendors import on_postgresql
from tests.zoo.models import Specimen

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]

# Its columns are those of the model, so that a row prints itself; or one more is left out.
TABLES = {
    "every column": PLAIN,
    "a generated column": PLAIN.replace(
        "int)", "int, twice int GENERATED ALWAYS AS (size * 2) STORED)"
    ),
    "rows that go with others": PLAIN.replace(
        "int)", "int, parent int DEFAULT 1 REFERENCES zoo_thing ON DELETE SET DEFAULT)"
    ).replace("bigserial", "int"),
}
BY_ROW = (
    "CREATE TRIGGER z_last AFTER INSERT ON zoo_thing FOR EACH ROW WHEN (NEW.id < 0)"
    " EXECUTE FUNCTION zoo_touch()"
)
MERGE = (
    "MERGE INTO zoo_thing AS t USING (VALUES ({a}, 1), ({b}, 2), ({c}, 3)) AS s (id, size)"
    " ON t.id = s.id WHEN MATCHED AND s.size = 2 THEN DELETE"
    " WHEN MATCHED THEN UPDATE SET size = s.size, name = 'merged'"
    " WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'merged')"
)
STATEMENTS = [
    "INSERT INTO zoo_thing (id, name) VALUES ({a}, 'a'), ({b}, 'b') ON CONFLICT DO NOTHING",
    "INSERT INTO zoo_thing (id, name) VALUES ({a}, 'a'), ({b}, 'b'), ({c}, 'c')"
    " ON CONFLICT (id) DO UPDATE SET name = excluded.name || zoo_thing.name, size = 1",
    "INSERT INTO zoo_thing (id, name, size)"
    " SELECT id + 1, name, size FROM zoo_thing WHERE id = {a}",
    "UPDATE zoo_thing SET size = coalesce(size, 0) + 1 WHERE id IN ({a}, {b})",
    "UPDATE zoo_thing SET id = {b} WHERE id = {a}",
    "UPDATE zoo_thing SET name = name WHERE id > {a}",
    "DELETE FROM zoo_thing WHERE id IN ({a}, {c})",
    "WITH gone AS (DELETE FROM zoo_thing WHERE id >= {a} RETURNING id, name)"
    " INSERT INTO zoo_thing (id, name) SELECT id, name || '!' FROM gone LIMIT 1",
    "WITH gone AS (DELETE FROM zoo_thing WHERE id = {a} RETURNING *), made AS ("
    " INSERT INTO zoo_thing (id, name) SELECT id, 'again' FROM gone RETURNING id)"
    " UPDATE zoo_thing SET size = 5 WHERE id = {b}",
    "WITH moved AS (UPDATE zoo_thing SET id = id + 20 WHERE id = {a} RETURNING id)"
    " INSERT INTO zoo_thing (id, name) SELECT id - 20, 'new' FROM moved",
    "DO $$ BEGIN INSERT INTO zoo_thing (id) VALUES ({a}) ON CONFLICT DO NOTHING;"
    " UPDATE zoo_thing SET name = 'in a block' WHERE id = {a}; RAISE division_by_zero;"
    " EXCEPTION WHEN division_by_zero THEN DELETE FROM zoo_thing WHERE id = {b}; END $$",
    "TRUNCATE zoo_thing",
]

Entry = tuple[str, str | None, str | None]


def program(chance: random.Random) -> list[list[str]]:
    """Transactions of some statements each, about a few keys."""
    known = [*STATEMENTS, MERGE] if connection.pg_version >= 150000 else STATEMENTS
    # Emptying the table is the rarest.
    weights = [1 if text.startswith("TRUNCATE") else 6 for text in known]
    transactions = []
    for _ in range(chance.randint(3, 8)):
        texts = chance.choices(known, weights, k=chance.randint(1, 4))
        keys = [chance.sample(range(1, 6), 3) for _ in texts]
        transactions.append(
            [text.format(a=a, b=b, c=c) for text, (a, b, c) in zip(texts, keys, strict=True)]
        )
    return transactions


def histories(transactions: list[list[str]]) -> dict[str | None, list[Entry]]:
    """What each row's key shows in the log after these transactions, which begin with no row. A
    statement that breaks the key's uniqueness is taken back alone."""
    sql("TRUNCATE zoo_thing")
    forget()
    for statements in transactions:
        with transaction.atomic():
            for statement in statements:
                try:
                    with transaction.atomic():
                        sql(statement)
                except DatabaseError:
                    continue
    found: dict[str | None, list[Entry]] = defaultdict(list)
    entries = WalEntry.objects.filter(table_name="zoo_thing").order_by("id")
    for op, old, new in entries.values_list("op", "old", "new"):
        if op == "TRUNCATE":
            for history in found.values():
                history.append((op, None, None))
            continue
        # A row that got another key left the first one.
        for image in {key_of(old), key_of(new)} - {None}:
            found[image].append((op, old, new))
    return found


def key_of(image: str | None) -> str | None:
    return None if image is None else str(msgspec.json.decode(image)["id"])


def rows_after(found: dict[str | None, list[Entry]]) -> dict[str | None, Any]:
    """The rows that the histories lead to. Fails where an entry does not follow the one before."""
    rows = {}
    for key, history in found.items():
        row: str | None = None
        for op, old, new in history:
            if key_of(old) == key:
                assert row == old, (op, history)
            else:
                assert row is None or op == "TRUNCATE", (op, history)
            row = new if key_of(new) == key else None
        if row is not None:
            rows[key] = msgspec.json.decode(row)
    return rows


@pytest.mark.usefixtures("touch")
@pytest.mark.parametrize("table", TABLES)
def test_both_levels_write_one_history_of_each_row_and_it_leads_to_the_table(table: str) -> None:
    chance = random.Random(table)
    programs = [program(chance) for _ in range(8)]
    with thing_table(TABLES[table]):
        assert levels()["insert"] == "statement"
        by_statement = []
        for transactions in programs:
            by_statement.append(histories(transactions))
            rows = {
                str(key): [name, size]
                for key, name, size in sql("SELECT id, name, size FROM zoo_thing")
            }
            found = rows_after(by_statement[-1])
            assert {key: [row["name"], row["size"]] for key, row in found.items()} == rows
        sql(BY_ROW)
        install.reconcile()
        assert levels()["insert"] == "row"
        assert [histories(transactions) for transactions in programs] == by_statement


@pytest.mark.usefixtures("touch")
@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
def test_what_a_statement_s_trigger_does_to_a_new_row_comes_after_its_insert(event: str) -> None:
    """PostgreSQL runs the statement triggers of what else the statement does first."""
    other = {
        "UPDATE": "UPDATE zoo_thing SET name = 'b' WHERE id = 1",
        "DELETE": "DELETE FROM zoo_thing WHERE id = 1",
    }[event]
    with thing_table(PLAIN):
        sql(
            f"CREATE TRIGGER z_last AFTER {event} ON zoo_thing FOR EACH STATEMENT"
            " WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION zoo_touch()"
        )
        install.reconcile()
        sql("INSERT INTO zoo_thing (id, name, size) VALUES (1, 'a', 0)")
        sql(f"WITH w AS ({other} RETURNING id) INSERT INTO zoo_thing (id) SELECT id + 1 FROM w")
        of_new = [(c.op, c.new and c.new["size"]) for c in changes("zoo_thing") if c.key == "2"]
        assert of_new == [("INSERT", None), ("UPDATE", 1)]


def test_a_row_looks_the_same_in_every_entry() -> None:
    values = [*({} for _ in range(2)), specimens.FULL]
    forget()
    Specimen.objects.bulk_create([Specimen(**one) for one in values])
    Specimen.objects.update(small=None)
    Specimen.objects.update(small=1)
    Specimen.objects.all().delete()
    found = texts(Specimen)
    size = len(values)
    assert [op for op, _, _ in found[::size]] == ["INSERT", "UPDATE", "UPDATE", "DELETE"]
    for earlier, later in zip(found, found[size:], strict=False):
        assert earlier[2] == later[1]
