"""A policy as text: everything quoted, a doubt unknown, and what cannot be said noted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.test.utils import isolate_apps

from auth_rls.export.quoting import LONGEST, Function, identifier, literal, shortened
from auth_rls.export.render import Renderer, Table
from auth_rls.export.subject_functions import Users, functions
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.parse import parse
from auth_rls.predicates.predicate import Not, Predicate, Ref, Select, Test
from auth_rls.sql.columns import columns_of, model_named, schema_of
from auth_rls.sql.dialects.base import UNKNOWN
from auth_rls.subjects.user_lookup import field_value
from tests.zoo.models import Note

USERS = Users(
    table='"public"."auth_user"',
    key="id",
    kind=Kind.INT,
    active="is_active",
    superuser="is_superuser",
    holding=None,
    user_id_claim="sub",
    role_claim="role",
    default_role="authenticated",
    mapped=True,
    may_bypass=True,
)
NOTES = Table('"public"."zoo_note"', columns_of(Note))


def renderer() -> Renderer:
    columns = dict(columns_of(User))
    # No user of Django's has such a column.
    columns["first_name"] = replace(columns["first_name"], kind=Kind.INET)
    return Renderer(table_of, USERS, Table(USERS.table, columns))


def table_of(label: str) -> Table:
    model = model_named(label)
    return Table(f'"public".{identifier(model._meta.db_table)}', columns_of(model))


def rendered(json: Any) -> str:
    predicate = parse(json, schema_of(Note), lambda label: schema_of(model_named(label)))
    return renderer().condition(predicate, NOTES)


def test_a_name_cannot_end_its_quotes() -> None:
    assert identifier('a"; DROP TABLE x; --') == '"a""; DROP TABLE x; --"'


@pytest.mark.parametrize(
    "text, quoted",
    [("a'b", "'a''b'"), ("a\\'b", "E'a\\\\''b'"), ("%s", "'%s'"), ("", "''"), ("$1", "'$1'")],
)
def test_a_text_cannot_end_its_quotes(text: str, quoted: str) -> None:
    assert literal(text) == quoted


def test_a_text_that_no_database_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        literal("a\0b")


def test_a_long_name_is_cut_within_its_bytes_and_stays_its_own() -> None:
    names = {shortened("é" * 60 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name.encode()) <= LONGEST for name in names)
    assert shortened("short") == "short"


def test_a_function_s_body_cannot_end_itself() -> None:
    sql = Function("f", "", "text", "SELECT '$body$; DROP TABLE x; --'").sql
    tag = sql.rsplit("\n", 1)[1]
    assert tag != "$body$" and sql.count(tag) == 2


@pytest.mark.parametrize("definer", [True, False])
def test_a_function_reads_no_name_of_the_session_s(definer: bool) -> None:
    sql = Function("f", "", "text", "SELECT ''", definer=definer).sql
    assert "SET search_path = pg_catalog, pg_temp" in sql
    assert ("SECURITY DEFINER" in sql) is definer
    assert ("SET row_security = off" in sql) is definer


def test_a_value_is_quoted_where_it_stands() -> None:
    assert rendered({"title": "%s'; --"}) == """("title"::text = '%s''; --'::text)"""
    listed = """("title"::text = ANY(ARRAY['a', 'b']::text[]))"""
    assert rendered({"title__in": ["b", "a"]}) == listed


def test_a_claim_s_path_is_quoted_step_by_step() -> None:
    assert rendered({"score": "$claims.a'b.c"}) == (
        "(\"score\" = (SELECT auth_rls.to_int((auth_rls.claims() -> 'a''b' -> 'c')))::int8)"
    )


def test_a_select_becomes_a_function_and_nested_ones_stand_inside_it() -> None:
    made = renderer()
    inner = Select("zoo.Member", "team_id", Test("role", "exact", "x"), "", Kind.INT)
    outer = Select("zoo.Note", "team_id", Test("team_id", "in", inner), "", Kind.INT)
    sql = made.condition(Test("team_id", "in", outer), NOTES)
    (function,) = [f for name, f in made.functions.items() if name.startswith("set_")]
    assert sql == f'("team_id" = ANY(ARRAY(SELECT {function.signature})))'
    assert function.definer
    assert 'FROM "public"."zoo_note" AS t1' in function.body
    assert 'FROM "public"."zoo_member" AS t2' in function.body


ADDRESS = Test("title", "exact", Ref("user", ("first_name",), Kind.TEXT))


def test_what_sql_cannot_say_is_unknown_and_noted() -> None:
    made = renderer()
    assert made.condition(Not(ADDRESS), NOTES) == f"(NOT {UNKNOWN})"
    (line,) = made.notes
    assert "IP address" in line and "lets nobody in" in line


def test_inside_a_select_it_makes_the_whole_membership_unknown() -> None:
    made = renderer()
    select = Select("zoo.Note", "team_id", ADDRESS, "", Kind.INT)
    nested = Select("zoo.Note", "team_id", Test("team_id", "in", select), "", Kind.INT)
    predicate: Predicate = Not(Test("team_id", "in", nested))
    assert made.condition(predicate, NOTES) == f"(NOT {UNKNOWN})"
    assert len(made.notes) == 1


def test_without_a_table_of_permissions_nobody_holds_any() -> None:
    (holds,) = [function for function in functions(USERS) if function.name == "holds"]
    assert holds.body == "SELECT false"


def test_a_user_that_is_always_active_needs_no_column() -> None:
    users = replace(USERS, active=True, superuser=False)
    (asker,) = [function for function in functions(users) if function.name == "asker"]
    assert 'SELECT u."id", true, false INTO' in asker.body


@isolate_apps("tests.zoo")
def test_a_key_to_a_collated_column_is_collated_itself() -> None:
    class Tag(models.Model):
        name = models.CharField(max_length=9, primary_key=True, db_collation="case_blind")

        class Meta:
            app_label = "zoo"

    class Tagged(models.Model):
        tag = models.ForeignKey(Tag, models.CASCADE)

        class Meta:
            app_label = "zoo"

    assert columns_of(Tagged)["tag_id"].collated
    assert not columns_of(Note)["title"].collated


@pytest.mark.parametrize(
    "named, found",
    [
        ("6c84fb90-12c4-11e1-840d-7b25c5ee775a", True),
        ("6C84FB9012C411E1840D7B25C5EE775A", True),
        ("{6c84fb90-12c4-11e1-840d-7b25c5ee775a}", True),
        ("urn:uuid:6c84fb90-12c4-11e1-840d-7b25c5ee775a", False),
        ("6c84fb90_12c411e1840d7b25c5ee775a", False),
        ("6c84fb90", False),
    ],
)
def test_a_user_s_uuid_is_spelled_as_policies_spell_it(named: str, found: bool) -> None:
    assert (field_value(models.UUIDField(), named) is not None) is found
