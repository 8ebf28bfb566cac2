"""`export_rls`: prints, installs and compares."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection

from auth_rls import Subject, visible
from auth_rls.policy.declared import declare_policy
from tests.support.exports import asking, differences, export, of, seen
from tests.support.policies import policy, user
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("alone")]


def test_it_prints_what_the_policies_say() -> None:
    policy({"owner": "$user.id"}, name='The "owner"', audience="permission")
    policy(True, on="zoo.delete_note", audience="authenticated", mode="restrictive")
    out, err = export()
    assert err == ""
    assert 'ALTER TABLE "public"."zoo_note" ENABLE ROW LEVEL SECURITY;' in out
    assert 'CREATE POLICY "rowcast: The ""owner""" ON "public"."zoo_note"' in out
    assert "AS PERMISSIVE FOR SELECT TO PUBLIC" in out
    assert "AS RESTRICTIVE FOR DELETE TO PUBLIC" in out
    assert "auth_rls.holds('zoo', 'view_note')" in out


def test_equal_policies_are_printed_alike() -> None:
    values = [f"value {number}" for number in range(50)]
    made = policy({"any": [{"title__in": values}, {"body__in": values}]})
    first, _ = export()
    made.using = {"any": [{"title__in": values[::-1]}, {"body__in": values[::-1]}]}
    made.save()
    assert export()[0] == first


def test_policies_in_code_are_exported_too() -> None:
    declare_policy("Declared", "zoo.view_note", audience="anyone", using=True)
    assert '"rowcast: Declared"' in export()[0]


def test_policies_on_topics_are_not_about_rows() -> None:
    policy(True, on="realtime.receive_broadcast")
    out, err = export()
    assert "CREATE POLICY" not in out and err == ""


def test_a_select_from_what_has_no_table_lets_nobody_in(settings: Any) -> None:
    settings.AUTH_RLS = {"POLICY_MODELS": ["realtime.Topic"]}
    select = {"select": "topic", "from": "realtime.Topic"}
    policy({"not": {"title__in": select}}, name="Topics")
    out, err = export()
    if connection.vendor == "postgresql":
        assert "policy 'Topics': title__in: realtime.Topic has no table" in err
        assert "AND (NOT (NULL = 1))" in out


def test_a_broken_policy_is_said_and_denies() -> None:
    policy({"nothing": 1}, name="Broken")
    out, err = export()
    assert err.startswith("policy 'Broken' cannot be used and denies: using: nothing: unknown")
    assert err.count("\n") == 1
    assert f"-- {err}" in out
    assert "(SELECT auth_rls.role() IS NOT NULL) AND (1 = 0)" in out


@on_sqlite
@pytest.mark.parametrize("option", ["--apply", "--check"])
def test_on_sqlite_it_says_that_this_is_for_postgresql(option: str) -> None:
    with pytest.raises(CommandError, match=r"^Row security is PostgreSQL's; .* is SQLite\."):
        export(option)


def test_before_migrate_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", lambda: [])
    with pytest.raises(CommandError, match=r"^The table of policies .* run `migrate` first\.$"):
        export()


def test_an_unknown_database_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match=r"^DATABASES has no alias 'other'\.$"):
        export("--database", "other")


@on_postgresql
def test_what_is_printed_can_be_run_and_then_checks() -> None:
    policy({"title__in": ["a", "b\\'%s"]})
    policy({"owner__in": {"select": "user", "from": "zoo.Member", "where": {"role": "$role"}}})
    out, _ = export()
    with connection.cursor() as cursor:
        cursor.execute(out.replace("BEGIN;", "", 1).replace("COMMIT;", ""))
        cursor.execute("RESET search_path")
    assert "as they should be" in export("--check")[0]


@on_postgresql
def test_it_mends_what_differs_and_nothing_else() -> None:
    kept = policy({"title": "kept"}, name="kept")
    changed = policy({"title": "before"}, name="changed")
    gone = policy(
        {"owner__in": {"select": "user", "from": "zoo.Member"}}, name="gone", audience="anyone"
    )
    assert any("is missing" in line for line in differences())
    export("--apply")
    with connection.cursor() as cursor:
        cursor.execute("SELECT oid FROM pg_policy WHERE polname = 'rowcast: kept'")
        before = cursor.fetchone()
    assert "as they should be" in export("--check")[0]
    assert "nothing to do" in export("--apply")[0]
    changed.using = {"title": "after"}
    changed.save()
    gone.delete()
    lines = differences()
    assert lines[:2] == [
        "zoo_note: policy 'rowcast: changed' is out of date",
        "zoo_note: policy 'rowcast: gone' is not in force any more",
    ]
    assert lines[2].startswith("function auth_rls.set_")
    assert lines[2].endswith("is not needed any more") and len(lines) == 3
    export("--apply")
    assert "as they should be" in export("--check")[0]
    assert kept.name == "kept"
    with connection.cursor() as cursor:
        cursor.execute("SELECT oid FROM pg_policy WHERE polname = 'rowcast: kept'")
        assert cursor.fetchone() == before


@on_postgresql
@pytest.mark.parametrize(
    "sql, line",
    [
        (
            'ALTER POLICY "rowcast: it" ON zoo_note USING (true)',
            "zoo_note: policy 'rowcast: it' was altered by hand",
        ),
        (
            'DROP POLICY "rowcast: it" ON zoo_note',
            "zoo_note: policy 'rowcast: it' is missing",
        ),
        (
            "ALTER TABLE zoo_note DISABLE ROW LEVEL SECURITY",
            "zoo_note: row security is not enabled",
        ),
        (
            "CREATE POLICY other ON zoo_note USING (true)",
            "zoo_note: policy 'other' is not one of ours and lets rows through",
        ),
        (
            "CREATE OR REPLACE FUNCTION auth_rls.bypasses() RETURNS boolean LANGUAGE sql STABLE "
            "AS 'SELECT true'",
            'function auth_rls."bypasses"() was altered by hand',
        ),
    ],
)
def test_what_was_altered_by_hand_is_found(sql: str, line: str) -> None:
    policy({"title": "a"}, name="it")
    export("--apply")
    with connection.cursor() as cursor:
        cursor.execute(sql)
    assert differences() == [line]
    _, err = export("--apply")
    if "other" in sql:  # whose it is, we do not know
        assert err == f"{line}\n" and differences() == [line]
    else:
        assert err == "" and "as they should be" in export("--check")[0]


@on_postgresql
def test_a_table_that_loses_its_last_policy_stays_walled() -> None:
    only = policy(True)
    Note.objects.create(title="a")
    export("--apply")
    ada = user()
    assert seen(of(ada)) == {"a"}
    only.delete()
    export("--apply")
    assert seen(of(ada)) == set()
    assert seen({"role": "service_role"}) == set()


@on_postgresql
def test_no_name_in_the_session_s_search_path_stands_in_for_ours() -> None:
    ada = user()
    policy({"title": "$user.username"})
    Note.objects.create(title="ada")
    Note.objects.create(title="ben")
    export("--apply")
    with asking(of(ada)) as run:
        run("CREATE TEMP TABLE auth_user (id int8, username text, is_active bool)")
        run("INSERT INTO auth_user VALUES (%s, 'ben', true)", ada.pk)
        run(
            "CREATE FUNCTION pg_temp.to_json(text) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'"
        )
        run("SELECT set_config('search_path', 'pg_temp, public', true)")
        assert run("SELECT title FROM public.zoo_note") == [("ada",)]


@on_postgresql
def test_an_owner_who_is_no_superuser_can_install_it() -> None:
    ada = user("ada", "zoo.view_note")
    team = Team.objects.create(name="t")
    Member.objects.create(user=ada, team=team)
    Note.objects.create(title="a", team=team)
    Note.objects.create(title="b")
    where = {"user__in": {"select": "owner", "from": "zoo.Note"}}
    select = {"select": "team", "from": "zoo.Member", "where": {"not": where}}
    policy({"team__in": select}, audience="permission")
    policy(True, on="zoo.view_member")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("CREATE ROLE rowcast_owner NOLOGIN")
        cursor.execute("SELECT quote_ident(current_database())")
        cursor.execute(f"GRANT CREATE ON DATABASE {cursor.fetchone()[0]} TO rowcast_owner")
        cursor.execute("GRANT ALL ON SCHEMA public TO rowcast_owner")
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"ALTER TABLE {table} OWNER TO rowcast_owner")
        cursor.execute("SET LOCAL ROLE rowcast_owner")
    export("--apply")
    assert "as they should be" in export("--check")[0]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM zoo_note")
        assert cursor.fetchone() == (2,)
        cursor.execute("RESET ROLE")
    assert (
        seen(of(ada))
        == {"a"}
        == set(visible(Note.objects.all(), Subject.from_user(ada)).values_list("title", flat=True))
    )


@on_postgresql
def test_who_does_not_own_the_tables_gets_one_clear_line() -> None:
    policy(True)
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE rowcast_other NOLOGIN")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO rowcast_other")
        cursor.execute("CREATE SCHEMA auth_rls AUTHORIZATION rowcast_other")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE rowcast_other")
    with pytest.raises(CommandError) as caught:
        export("--apply")
    assert str(caught.value) == "Nothing was changed: must be owner of table zoo_note"


@on_postgresql
def test_long_names_stay_apart() -> None:
    for end in ("a", "b"):
        policy({"title": end}, name="é" * 100 + end)
        Note.objects.create(title=end)
    export("--apply")
    assert "as they should be" in export("--check")[0]
    assert seen({"role": "anon"}) == {"a", "b"}
