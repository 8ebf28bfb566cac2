"""Rowcast's own tables show nothing to other roles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from tests.support.exports import differences, export, run
from tests.support.policies import policy
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Note

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("alone")]


@pytest.fixture
def role(db: None) -> Iterator[str]:
    """A role that owns nothing, gone with the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE rowcast_web NOLOGIN")
    yield "rowcast_web"


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
