"""The text of the triggers on PostgreSQL; what they do is in the integration tests."""

from __future__ import annotations

from typing import Any

from auth_rls.predicates.kinds import Kind
from realtime.wal.postgresql import triggers as postgresql
from tests.support.relations import COLUMNS, relation_of


def shape(**fields: Any) -> postgresql.TriggerFunctionSql:
    given: dict[str, Any] = {"types": {}, "whole": True, "table": '"public"."t"', "wal": "w.log"}
    return postgresql.TriggerFunctionSql(relation=relation_of(COLUMNS, "t"), **(given | fields))


def test_the_name_of_a_function_is_short_and_no_other_table_s() -> None:
    names = {
        postgresql.function_name(schema, table)
        for schema in ("public", "other")
        for table in ("t", "x" * 63, "x" * 62 + "y", "ü" * 31 + "a", "ü" * 31 + "b")
    }
    assert len(names) == 10
    assert all(len(name.encode()) <= 63 for name in names)
    assert {"rowcast_t", "rowcast_other.t"} < names


def test_a_function_lies_beside_the_log_and_sets_what_its_values_need() -> None:
    create, revoke = shape().function().sql
    assert create.startswith('CREATE OR REPLACE FUNCTION w."rowcast_t"() RETURNS trigger')
    assert " SECURITY DEFINER SET search_path TO pg_catalog, pg_temp SET " in create
    assert " SET TimeZone TO 'UTC' SET extra_float_digits TO '1' AS $rowcast$" in create
    assert revoke == 'REVOKE ALL ON FUNCTION w."rowcast_t"() FROM PUBLIC'
    plain = postgresql.TriggerFunctionSql(
        relation=relation_of(COLUMNS[:1], "t"), types={}, whole=True, table="t", wal="w.log"
    )
    assert "TimeZone" not in plain.function().sql[0]


def test_text_of_the_table_cannot_leave_its_quotes() -> None:
    nasty = (("id", "int8", Kind.INT, ""), ("$rowcast$ ' \\ \"", "text", Kind.TEXT, ""))
    made = postgresql.TriggerFunctionSql(
        relation=relation_of(nasty, "it's"), types={}, whole=True, table="t", wal="w.log"
    )
    create = made.function().sql[0]
    assert create.endswith("$rowcast_$")
    assert create.count("$rowcast_$") == 2
    assert " E'" in create and '"rowcast_it\'s"()' in create


def test_a_level_changes_the_trigger_of_inserts_alone() -> None:
    by_statement = shape(level=postgresql.Level.STATEMENT).triggers()
    by_row = shape(level=postgresql.Level.ROW).triggers()
    assert [t.type for t in by_statement] == [4, 17, 9, 32]
    assert [t.type for t in by_row] == [5, 17, 9, 32]
    assert by_statement[1:] == by_row[1:]
    assert all("ENABLE ALWAYS TRIGGER" in t.sql[1] for t in by_row)


def test_an_update_is_always_captured_where_every_column_is() -> None:
    unless_changed = "IF rowcast.before = rowcast.after THEN"
    assert unless_changed not in shape(whole=True).function().body
    assert unless_changed in shape(whole=False).function().body
