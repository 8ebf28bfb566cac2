"""`export_rls`: prints, installs and compares, and what it installs is a wall."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.utils import ProgrammingError

from auth_rls import Subject, visible
from auth_rls.models import Policy
from auth_rls.policy.declared import DECLARED, declare_policy
from tests.support.policies import permission, policy, user
from tests.support.row_security import CLIENT
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Member, Note, Team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def alone(db: None) -> Iterator[None]:
    """No policies but the test's own, and none of what is checked when a transaction ends: a
    table with checks still to come takes no policy."""
    with patch.dict(DECLARED, clear=True):
        Policy.objects.all().delete()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        yield


def export(*options: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("export_rls", *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def differences() -> list[str]:
    """What --check prints, after it exits with 1."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("export_rls", "--check", stdout=out, stderr=io.StringIO())
    assert caught.value.returncode == 1
    return out.getvalue().splitlines()


@contextmanager
def asking(claims: Any) -> Iterator[Any]:
    """A role that owns nothing and bypasses nothing, with these claims."""
    text = claims if isinstance(claims, str) else json.dumps(claims)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_roles WHERE rolname = '{CLIENT}'")
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {CLIENT} NOLOGIN")
        cursor.execute(f"GRANT ALL ON zoo_note TO {CLIENT}")
        cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [text])
        cursor.execute(f"SET LOCAL ROLE {CLIENT}")

        def run(sql: str, *params: Any) -> list[Any]:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

        yield run
        transaction.set_rollback(True)


def seen(claims: Any) -> set[str]:
    with asking(claims) as run:
        return {title for (title,) in run("SELECT title FROM zoo_note")}


def of(user: User) -> dict[str, Any]:
    return {"sub": str(user.pk), "role": "authenticated"}


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
def test_claims_that_name_nobody_see_nothing() -> None:
    policy(True)
    Note.objects.create(title="a")
    export("--apply")
    user("gone", pk=9, is_active=False, is_superuser=True)
    assert seen({"role": "anon"}) == {"a"}
    for claims in (
        "",
        {},
        [],
        "null",
        {"role": "postgres"},
        {"role": ["anon"]},
        {"role": "service_role ", "n": 1},
        {"role": "authenticated", "sub": "9"},
        {"role": "anon", "sub": 9},
        {"role": "service_role", "sub": 9},
        {"role": "service_role", "sub": 9.0},
    ):
        assert seen(claims) == set(), claims
    with pytest.raises(Exception, match="invalid input syntax for type json"):
        seen("{")


@on_postgresql
def test_claims_without_a_role_have_the_default_role(settings: Any) -> None:
    policy(True, audience="authenticated")
    Note.objects.create(title="a")
    export("--apply")
    assert seen({"sub": "x"}) == seen({"sub": "x", "role": None}) == {"a"}
    settings.AUTH_RLS = {"DEFAULT_ROLE": None}
    export("--apply")
    assert seen({"sub": "x"}) == seen({"sub": "x", "role": None}) == set()


@on_postgresql
def test_claims_that_another_issuer_may_have_signed_bypass_nothing_and_are_no_user(
    settings: Any,
) -> None:
    root = user("root", is_superuser=True)
    policy({"owner": "$user.id"}, audience="authenticated")
    Note.objects.create(title="root's", owner=root)
    Note.objects.create(title="b")
    keys = {"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0" * 8}]}
    asked = {"role": "authenticated", "sub": str(root.pk)}
    settings.AUTH_RLS = {"JWKS": keys}
    export("--apply")
    assert seen({"role": "service_role"}) == seen(asked) == set()
    settings.AUTH_RLS = {"JWKS": keys, "USER_FIELD": "pk"}
    export("--apply")
    assert seen({"role": "service_role"}) == set()
    assert seen(asked) == {"root's"}
    settings.AUTH_RLS = {"JWKS": keys, "USER_FIELD": "pk", "SERVICE_ROLE_TOKENS": "any"}
    export("--apply")
    assert seen({"role": "service_role"}) == seen(asked) == {"root's", "b"}


@pytest.mark.parametrize(
    "keys",
    [
        {"USER_ID_CLAIM": ["uid", "sub"]},
        {"USER_ID_CLAIM": "app.user"},
        {"USER_FIELD": "email"},
        {"ROLE_CLAIM": "app.role"},
        {"ROLE_MAP": {"boss": "service_role"}},
        {"REQUIRED_CLAIMS": {"aal": "aal2"}},
    ],
    ids=lambda keys: next(iter(keys)),
)
@on_postgresql
def test_claims_that_sql_would_read_otherwise_are_not_exported(settings: Any, keys: Any) -> None:
    policy(True)
    settings.AUTH_RLS = keys
    with pytest.raises(CommandError, match=next(iter(keys))):
        export()


@on_postgresql
def test_a_select_reads_tables_that_the_asker_may_not() -> None:
    ada, ben = user("ada"), user("ben")
    team = Team.objects.create(name="t")
    Member.objects.create(user=ada, team=team)
    Note.objects.create(title="ours", team=team)
    policy({"team__in": {"select": "team", "from": "zoo.Member", "where": {"user": "$user.id"}}})
    policy(False, on="zoo.view_member")
    export("--apply")
    assert seen(of(ada)) == {"ours"}
    assert seen(of(ben)) == set()
    with asking(of(ada)) as run, pytest.raises(ProgrammingError, match="permission denied"):
        run("SELECT * FROM zoo_member")


@on_postgresql
def test_a_policy_that_reads_its_own_table_does_not_go_in_circles() -> None:
    ada = user()
    Note.objects.create(title="mine", owner=ada, score=1)
    Note.objects.create(title="same score", score=1)
    Note.objects.create(title="other", score=2)
    policy({"score__in": {"select": "score", "from": "zoo.Note", "where": {"owner": "$user.id"}}})
    export("--apply")
    assert seen(of(ada)) == {"mine", "same score"}


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


@on_postgresql
def test_a_permission_s_holder_is_decided_when_the_query_runs() -> None:
    ada = user()
    policy(True, audience="permission")
    Note.objects.create(title="a")
    export("--apply")
    assert seen(of(ada)) == set()
    ada.user_permissions.add(permission("zoo.view_note"))
    assert seen(of(ada)) == {"a"}
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert seen(of(ada)) == set()


@pytest.fixture
def role(db: None) -> Iterator[str]:
    """A role that owns nothing, gone with the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE rowcast_web NOLOGIN")
    yield "rowcast_web"


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


OWN = ("realtime_wal", "realtime_message", "realtime_presence", "realtime_head", "auth_rls_policy")


@on_postgresql
def test_our_own_tables_show_nothing_to_other_roles(role: str) -> None:
    policy(True, name="all")
    Note.objects.create(title="captured")
    connection.check_constraints()
    export("--apply")
    run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(OWN)}, zoo_note TO {role}")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM realtime_wal")
        assert cursor.fetchone()[0] > 0
        cursor.execute(f"SET LOCAL ROLE {role}")
        for table in OWN:
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone()[0] == 0, table
        cursor.execute(
            "SELECT set_config('request.jwt.claims', %s, true)", ['{"role": "service_role"}']
        )
        # What the role writes to a published table is captured all the same.
        cursor.execute("UPDATE zoo_note SET title = 'changed'")
        assert cursor.rowcount == 1
        cursor.execute("SELECT count(*) FROM realtime_wal")
        assert cursor.fetchone()[0] == 0
        cursor.execute("RESET ROLE")
    run(f"CREATE POLICY casts ON realtime_message FOR INSERT TO {role} WITH CHECK (true)")
    export("--check")
    run(f"CREATE POLICY shown ON realtime_message FOR SELECT TO {role} USING (true)")
    assert differences() == [
        "realtime_message: policy 'shown' is not one of ours and lets rows through"
    ]
    run("DROP POLICY shown ON realtime_message")
    run("ALTER TABLE realtime_wal DISABLE ROW LEVEL SECURITY")
    assert differences() == ["realtime_wal: row security is not enabled"]


@on_postgresql
@pytest.mark.parametrize(
    ("grant", "line"),
    [
        ("GRANT TRUNCATE ON zoo_note TO {role}", "zoo_note: {role} has TRUNCATE"),
        ("GRANT ALL ON realtime_wal TO {role}", "realtime_wal: {role} has REFERENCES, TRIGGER"),
        ("GRANT TRIGGER ON auth_rls_policy TO PUBLIC", "auth_rls_policy: PUBLIC has TRIGGER"),
        (
            "CREATE VIEW notes AS SELECT * FROM zoo_note; GRANT SELECT ON notes TO {role}",
            "zoo_note: the view notes shows its rows to {role}",
        ),
        (
            "CREATE MATERIALIZED VIEW log AS SELECT * FROM realtime_wal; "
            "GRANT SELECT ON log TO {role}",
            "realtime_wal: the view log shows its rows to {role}",
        ),
        (
            "CREATE ROLE rowcast_owner; ALTER TABLE zoo_note OWNER TO rowcast_owner; "
            "GRANT rowcast_owner TO {role}",
            "zoo_note: {role} is a member of its owner rowcast_owner",
        ),
    ],
)
def test_grants_that_lead_around_the_policies_are_reported(
    role: str, grant: str, line: str
) -> None:
    policy(True, name="all")
    export("--apply")
    run(grant.format(role=role))
    assert any(found.startswith(line.format(role=role)) for found in differences())
    assert line.format(role=role) in export("--apply")[1]


@on_postgresql
def test_grants_that_the_policies_narrow_are_none_to_report(role: str) -> None:
    policy(True, name="all")
    export("--apply")
    run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON zoo_note TO {role}")
    run("CREATE VIEW own AS SELECT 1 FROM zoo_note")
    run("CREATE VIEW asking WITH (security_invoker = true) AS SELECT * FROM zoo_note")
    run(f"GRANT SELECT ON asking TO {role}")
    run("CREATE ROLE rowcast_service BYPASSRLS; GRANT ALL ON zoo_note TO rowcast_service")
    export("--check")


@on_sqlite
def test_the_printed_script_walls_our_own_tables() -> None:
    policy(True, name="all")
    out, _ = export()
    for table in OWN:
        assert f'ALTER TABLE "public"."{table}" ENABLE ROW LEVEL SECURITY;' in out
