"""PostgreSQL's row security as a database has it to which nothing was exported."""

from __future__ import annotations

import os

from django.db import connection

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
# Roles belong to the server, which the workers of a run share; databases do not.
CLIENT = f"rowcast_client_{_WORKER}"
CLERK = f"zoo_clerk_{_WORKER}"

_SECURED = """
    SELECT format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', oid::regclass)
    FROM pg_class WHERE relrowsecurity
"""
_POLICIES = "SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) FROM pg_policy"


def remove_exported_policies() -> None:
    """Take back what `export_rls --apply` has committed: policies, their functions, and the row
    security of tables, those of Rowcast among them."""
    with connection.cursor() as cursor:
        for found in (_POLICIES, _SECURED):
            cursor.execute(found)
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)
        cursor.execute("DROP SCHEMA IF EXISTS auth_rls CASCADE")
