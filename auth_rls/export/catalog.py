"""The exported policies in a PostgreSQL database: reading, comparing and installing them.

Owns every statement that reads or changes the catalog. Our objects are the policies with our prefix
and the functions in our schema. Each has a comment with two digests: of the statement that made it,
and of PostgreSQL's own text of the result, so that a change by hand is found too. Only objects that
differ are changed. A table that loses its last policy keeps row-level security.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections, transaction

from auth_rls.export.desired import BYPASS, INHERITED, PREFIX, Export, TableName
from auth_rls.export.quoting import SCHEMA, digest, identifier, literal

_MARK: Final = "Rowcast "
# An advisory lock: of two runs at once each would drop the objects of the other.
_LOCK: Final = 0x726C7365

_POLICIES = """
SELECT n.nspname, c.relname, p.polname, p.polpermissive, p.polcmd = 'a',
  obj_description(p.oid, 'pg_policy'),
  concat_ws(' ', p.polcmd, p.polpermissive, p.polroles,
    coalesce(pg_get_expr(p.polqual, p.polrelid), '-'),
    coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '-'))
FROM pg_policy AS p
JOIN pg_class AS c ON c.oid = p.polrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""
_FUNCTIONS = """
SELECT p.proname, p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc'),
  pg_get_functiondef(p.oid)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %s AND p.prokind = 'f'
"""
_SECURED = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relrowsecurity
"""
_LOCATED = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p')
"""
# Grants to roles that row-level security applies to. REFERENCES shows which keys exist, and a
# trigger runs with the rights of the role that fires it.
_PRIVILEGES = """
SELECT n.nspname, c.relname, coalesce(r.rolname, 'PUBLIC'),
  string_agg(DISTINCT a.privilege_type, ', ' ORDER BY a.privilege_type)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE c.relkind IN ('r', 'p') AND a.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES')
  AND a.grantee <> c.relowner AND NOT coalesce(r.rolsuper OR r.rolbypassrls, false)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_MEMBERS = """
SELECT n.nspname, c.relname, m.rolname, o.rolname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS o ON o.oid = c.relowner
JOIN pg_roles AS m ON m.oid <> o.oid AND pg_has_role(m.oid, o.oid, 'USAGE')
WHERE c.relkind IN ('r', 'p') AND NOT (m.rolsuper OR m.rolbypassrls)
ORDER BY 1, 2, 3
"""
# A view reads with its owner's rights unless it is declared otherwise; a materialized view has a
# copy of the rows.
_VIEWS = """
SELECT DISTINCT n.nspname, c.relname, vn.nspname, v.relname, g.roles
FROM pg_depend AS d
JOIN pg_rewrite AS w ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
JOIN pg_class AS v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
JOIN pg_namespace AS vn ON vn.oid = v.relnamespace
JOIN pg_roles AS vo ON vo.oid = v.relowner
JOIN pg_class AS c ON c.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass AND c.oid <> v.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT string_agg(DISTINCT coalesce(r.rolname, 'PUBLIC'), ', ') AS roles
  FROM aclexplode(v.relacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
  WHERE a.grantee <> v.relowner AND NOT coalesce(r.rolsuper OR r.rolbypassrls, false)
) AS g
WHERE g.roles IS NOT NULL
  AND (vo.rolsuper OR vo.rolbypassrls OR pg_has_role(v.relowner, c.relowner, 'USAGE'))
  AND NOT (v.relkind = 'v' AND EXISTS (
    SELECT FROM unnest(v.reloptions) AS o(setting)
    WHERE lower(o.setting) IN ('security_invoker=true', 'security_invoker=on',
      'security_invoker=yes', 'security_invoker=1')))
ORDER BY 1, 2, 3, 4
"""


@dataclass(frozen=True, slots=True)
class _Installed:
    """An object in the database: its comment, and the digest of PostgreSQL's text of it."""

    comment: str
    found: str
    permissive: bool = True
    signature: str = ""
    # Whether it is a policy on INSERT alone, which shows no row.
    inserts: bool = False

    def state(self, sql: str) -> str | None:
        """How it differs from the object that `sql` makes; None if it does not."""
        made, _, found = self.comment.removeprefix(_MARK).partition(".")
        if not self.comment.startswith(_MARK) or made != digest(sql):
            return "is out of date"
        # The printed script, run by hand, makes no second digest.
        return "was altered by hand" if found and found != self.found else None


class Catalog:
    """Policies, functions and secured tables of a database, read when this is made."""

    def __init__(self, using: str) -> None:
        self._using = using
        with _plain(using) as cursor:
            cursor.execute(_POLICIES)
            self.policies = {
                (TableName(schema, table), name): _Installed(
                    comment or "", digest(text), permissive, inserts=inserts
                )
                for schema, table, name, permissive, inserts, comment, text in cursor.fetchall()
            }
            cursor.execute(_FUNCTIONS, [SCHEMA])
            self.functions = {
                name: _Installed(comment or "", digest(text), signature=signature)
                for name, signature, comment, text in cursor.fetchall()
            }
            cursor.execute(_SECURED)
            self.secured = {TableName(*row) for row in cursor.fetchall()}

    def differences(self, export: Export) -> list[str]:
        """One line for each object of ours that differs from `export`."""
        lines = [
            f"{table_name}: row security is not enabled"
            for table_name in export.secured
            if table_name not in self.secured
        ]
        for policy in export.policies:
            state = self._state(self.policies.get((policy.table_name, policy.name)), policy.sql)
            if state:
                lines.append(f"{policy.table_name}: policy {policy.name!r} {state}")
        for table_name, name in self._left_over(export):
            lines.append(f"{table_name}: policy {name!r} is not in force any more")
        for function in export.functions:
            state = self._state(self.functions.get(function.name), function.sql)
            if state:
                lines.append(f"function {function.signature} {state}")
        lines += [
            f"function {installed.signature} is not needed any more"
            for installed in self._idle(export).values()
        ]
        return lines

    def others(self, export: Export) -> list[str]:
        """One line for each foreign policy that lets more rows through than `export`. Foreign
        policies are not changed."""
        return [
            f"{table_name}: policy {name!r} is not one of ours and lets rows through"
            for (table_name, name), installed in self.policies.items()
            if table_name in export.secured
            and not _ours(name)
            and installed.permissive
            and not (table_name in export.own and installed.inserts)
        ]

    def grants(self, export: Export) -> list[str]:
        """One line for each grant that allows a way around row-level security on the tables of
        `export`. Grants are not changed."""
        secured = set(export.secured)
        lines = []
        with _plain(self._using) as cursor:
            cursor.execute(_PRIVILEGES)
            for schema, table, role, privileges in cursor.fetchall():
                if (table_name := TableName(schema, table)) in secured:
                    lines.append(f"{table_name}: {role} has {privileges}, which no policy narrows")
            cursor.execute(_MEMBERS)
            for schema, table, role, owner in cursor.fetchall():
                if (table_name := TableName(schema, table)) in secured:
                    lines.append(f"{table_name}: {role} is a member of its owner {owner}")
            cursor.execute(_VIEWS)
            for schema, table, view_schema, view, roles in cursor.fetchall():
                if (table_name := TableName(schema, table)) in secured:
                    shown = TableName(view_schema, view)
                    lines.append(f"{table_name}: the view {shown} shows its rows to {roles}")
        return lines

    def apply(self, export: Export) -> None:
        """Install `export`. Call it inside a transaction, on a catalog that was read in it.

        The order matters: policies are dropped before the functions that they call, and made after
        them.
        """
        wanted = {(policy.table_name, policy.name): policy for policy in export.policies}
        stale = {
            key for key, policy in wanted.items() if self._state(self.policies.get(key), policy.sql)
        }
        functions = [
            function
            for function in export.functions
            if self._state(self.functions.get(function.name), function.sql)
        ]
        idle = self._idle(export)
        with _plain(self._using) as cursor:
            cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", [SCHEMA])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE SCHEMA {SCHEMA}")
                cursor.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC")
            if any(function.name in self.functions for function in functions):
                # A function's return type cannot be changed while a policy calls it.
                stale, functions = set(wanted), list(export.functions)
                idle = {
                    name: installed
                    for name, installed in self.functions.items()
                    if installed.comment.startswith(_MARK) or name in _names(export)
                }
            for table_name, name in [*self._left_over(export), *stale]:
                cursor.execute(f"DROP POLICY IF EXISTS {identifier(name)} ON {table_name.sql}")
            for installed in reversed(idle.values()):
                cursor.execute(f"DROP FUNCTION {installed.signature}")
            for function in functions:
                cursor.execute(function.sql)
            for key, policy in wanted.items():
                if key in stale:
                    cursor.execute(policy.sql)
            if not self.secured.issuperset(export.secured):
                # A table with deferred checks still to come cannot be altered.
                connections[self._using].check_constraints()
            for table_name in export.secured:
                if table_name not in self.secured:
                    cursor.execute(f"ALTER TABLE {table_name.sql} ENABLE ROW LEVEL SECURITY")
            now = Catalog(self._using)
            for key in stale:
                found, sql = now.policies[key].found, wanted[key].sql
                cursor.execute(
                    _commented(f"POLICY {identifier(key[1])} ON {key[0].sql}", sql, found)
                )
            for function in functions:
                found = now.functions[function.name].found
                cursor.execute(_commented(f"FUNCTION {function.signature}", function.sql, found))

    def _left_over(self, export: Export) -> list[tuple[TableName, str]]:
        """Policies of ours that are not in `export`."""
        wanted = {(policy.table_name, policy.name) for policy in export.policies}
        return [key for key in self.policies if _ours(key[1]) and key not in wanted]

    def _idle(self, export: Export) -> dict[str, _Installed]:
        """Functions of ours that are not in `export`."""
        names = _names(export)
        return {
            name: installed
            for name, installed in self.functions.items()
            if name not in names and installed.comment.startswith(_MARK)
        }

    @staticmethod
    def _state(installed: _Installed | None, sql: str) -> str | None:
        return "is missing" if installed is None else installed.state(sql)


def reconcile(export: Export, using: str) -> list[str]:
    """Install `export` in one transaction. Returns a line for each difference that it removed."""
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        catalog = Catalog(using)
        differences = catalog.differences(export)
        if differences:
            catalog.apply(export)
    return differences


def script(export: Export) -> str:
    """`export` as statements, to read or to run with psql."""
    lines = [
        "BEGIN;",
        "SET LOCAL search_path = pg_catalog, pg_temp;",
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;",
    ]
    for function in export.functions:
        lines += ["", f"{function.sql};"]
        lines.append(f"{_commented(f'FUNCTION {function.signature}', function.sql)};")
    for table_name in export.secured:
        lines += ["", f"ALTER TABLE {table_name.sql} ENABLE ROW LEVEL SECURITY;"]
    for policy in export.policies:
        name = f"{identifier(policy.name)} ON {policy.table_name.sql}"
        lines += ["", f"DROP POLICY IF EXISTS {name};", f"{policy.sql};"]
        lines.append(f"{_commented(f'POLICY {name}', policy.sql)};")
    return "\n".join([*lines, "", "COMMIT;"])


def located(db_table: str, using: str) -> TableName | None:
    """Schema and name of the table with Django's `db_table`; None if it does not exist."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(_LOCATED, [connection.ops.quote_name(db_table)])
        row = cursor.fetchone()
    return TableName(*row) if row else None


@contextmanager
def _plain(using: str) -> Iterator[Any]:
    """A cursor without a search path, so that PostgreSQL's texts are the same everywhere."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT current_setting('search_path')")
        (path,) = cursor.fetchone()
        cursor.execute("SELECT set_config('search_path', 'pg_catalog, pg_temp', true)")
        yield cursor
        cursor.execute("SELECT set_config('search_path', %s, true)", [path])


def _commented(what: str, sql: str, found: str = "") -> str:
    return (
        f"COMMENT ON {what} IS {literal(f'{_MARK}{digest(sql)}' + (f'.{found}' if found else ''))}"
    )


def _names(export: Export) -> set[str]:
    return {function.name for function in export.functions}


def _ours(name: str) -> bool:
    return name == BYPASS or name.startswith((PREFIX, INHERITED))
