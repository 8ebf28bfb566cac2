"""What roles may do to the log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.captured_models import (
    forget,
    ops,
    texts,
)
from tests.support.postgresql_tables import another, sql
from tests.support.row_security import CLERK
from tests.support.vendors import on_postgresql
from tests.zoo.models import Team

pytestmark = [on_postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def empty_log(transactional_db: None) -> None:
    forget()


@pytest.fixture
def role() -> Iterator[str]:
    sql(f"DROP ROLE IF EXISTS {CLERK}")
    sql(f"CREATE ROLE {CLERK}")
    sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON zoo_team TO {CLERK}")
    sql(f"GRANT USAGE ON SEQUENCE zoo_team_id_seq TO {CLERK}")
    sql(f"GRANT CREATE ON SCHEMA public TO {CLERK}")
    yield CLERK
    sql(f"DROP OWNED BY {CLERK} CASCADE")
    sql(f"DROP ROLE {CLERK}")


def test_a_writer_needs_no_rights_on_the_log(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("INSERT INTO zoo_team (name) VALUES ('a')")
        link.execute("UPDATE zoo_team SET name = 'b'")
        link.execute("DELETE FROM zoo_team")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute("SELECT * FROM realtime_wal")
    assert ops(Team) == ["INSERT", "UPDATE", "DELETE"]


def test_nobody_else_can_write_to_the_log_through_our_functions(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("CREATE TABLE forged (id bigint, name text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute(
                "CREATE TRIGGER t AFTER INSERT ON forged FOR EACH ROW"
                " EXECUTE FUNCTION rowcast_zoo_team()"
            )


def test_a_writer_s_search_path_leads_the_triggers_nowhere_else(role: str) -> None:
    with another() as link:
        link.execute(f"SET ROLE {role}")
        link.execute("CREATE TEMP TABLE realtime_wal (LIKE zoo_team)")
        link.execute(
            "CREATE FUNCTION public.to_json(bigint) RETURNS json LANGUAGE sql"
            " AS $$SELECT '0'::json$$"
        )
        link.execute("SET search_path = pg_temp, public, pg_catalog")
        link.execute("INSERT INTO zoo_team (id, name) VALUES (77, 'a')")
    assert texts(Team) == [("INSERT", None, '{"id":77,"name":"a"}')]
