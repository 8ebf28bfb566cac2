"""The subject in SQL: the functions by which exported policies read the session's subject.

Owns their text. The claims are in the setting `request.jwt.claims`, as JSON, where PostgREST and
Supabase put them; the program that sets it has verified them. The SQL function `asker` derives the
subject from them as `auth_rls.Subject` does from a token: without claims, with an unknown role, or
for an inactive user there is no subject, and every policy denies.

Pure: text only. The caller names the tables of users and permissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auth_rls.export.json_casts import FITS
from auth_rls.export.quoting import SCHEMA, Function, identifier, literal
from auth_rls.predicates.kinds import Kind

ROLES = ("anon", "authenticated", "service_role")
KEY_TYPES: Mapping[Kind, str] = {Kind.INT: "int8", Kind.TEXT: "text", Kind.UUID: "uuid"}
"""What a user's primary key may be."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Django's tables and columns of permissions. Tables are quoted, columns are not."""

    permissions: str
    permission_key: str
    permission_content_type: str
    content_types: str
    content_type_key: str
    user_permissions: str
    user_permissions_user: str
    user_permissions_permission: str
    user_groups: str
    user_groups_user: str
    user_groups_group: str
    group_permissions: str
    group_permissions_group: str
    group_permissions_permission: str


@dataclass(frozen=True, slots=True)
class Users:
    """The user table, quoted, and its columns. `active` and `superuser` are columns, or the value
    that holds for every user. Without `holding` no user holds a permission.

    `default_role` is the role of claims that name none, None for no subject. `mapped`: whether the
    user id claim names a row of this table. `may_bypass`: whether claims may say that row security
    does not apply, by their role or by a superuser.
    """

    table: str
    key: str
    kind: Kind
    active: str | bool
    superuser: str | bool
    holding: Holding | None
    user_id_claim: str
    role_claim: str
    default_role: str | None
    mapped: bool
    may_bypass: bool


# Valid as jsonb too, which refuses NUL and half a surrogate pair in text, as tokens do.
_CLAIMS = """
SELECT CASE WHEN setting.s::jsonb IS NOT NULL THEN setting.s::json END
FROM (SELECT nullif(current_setting('request.jwt.claims', true), '') AS s) AS setting
"""

_ASKER = """
DECLARE
  claims json := {schema}.claims();
  claim json := claims -> {user_id_claim};
  claimed text;
  named text;
  active boolean;
  superuser boolean;
BEGIN
  bypasses := false;
  IF json_typeof(claims) IS DISTINCT FROM 'object' OR claims::text = '{{}}' THEN
    RETURN;
  END IF;
  claimed := CASE coalesce(json_typeof(claims -> {role_claim}), 'null')
    WHEN 'null' THEN {default_role}
    WHEN 'string' THEN claims ->> {role_claim}
  END;
  IF claimed IS NULL OR claimed NOT IN ({roles}) THEN
    RETURN;
  END IF;
  named := CASE json_typeof(claim)
    WHEN 'string' THEN nullif(claim #>> '{{}}', '')
    WHEN 'number' THEN
      CASE WHEN claim::text ~ '^-?[0-9]+$' THEN claim::text::numeric::text END
  END;
  IF named IS NULL AND json_typeof(claim) NOT IN ('string', 'null') THEN
    RETURN;
  END IF;
  SELECT u.{key}, {is_active}, {is_superuser} INTO person, active, superuser
    FROM {table} AS u WHERE {mapped} AND {is_named};
  IF FOUND AND active IS NOT TRUE THEN
    person := NULL;
    RETURN;
  END IF;
  IF NOT {mapped} AND {fits} THEN
    named := NULL;
  END IF;
  role := claimed;
  id := CASE WHEN person IS NULL THEN to_json(named) ELSE to_json(person) END;
  bypasses := {may_bypass} AND (role = 'service_role'
    OR (role = 'authenticated' AND person IS NOT NULL AND superuser IS TRUE));
  IF role = 'anon' THEN
    person := NULL;
  END IF;
END
"""

_HOLDS = """
SELECT EXISTS (
  SELECT FROM {schema}.asker() AS a, {permissions} AS p
  JOIN {content_types} AS t ON t.{content_type_key} = p.{permission_content_type}
  WHERE t.app_label = $1 AND p.codename = $2 AND (
    EXISTS (
      SELECT FROM {user_permissions} AS d
      WHERE d.{user_permissions_user} = a.person
        AND d.{user_permissions_permission} = p.{permission_key})
    OR EXISTS (
      SELECT FROM {user_groups} AS g
      JOIN {group_permissions} AS h
        ON h.{group_permissions_group} = g.{user_groups_group}
      WHERE g.{user_groups_user} = a.person
        AND h.{group_permissions_permission} = p.{permission_key})))
"""


def functions(users: Users) -> list[Function]:
    """The functions about the subject, each after those that it calls."""
    fit = FITS[users.kind]
    key = KEY_TYPES[users.kind]
    return [
        *FITS[Kind.TEXT],
        *fit,
        Function("claims", "", "json", _CLAIMS),
        Function(
            "asker",
            f"OUT role text, OUT id json, OUT person {key}, OUT bypasses boolean",
            "record",
            _asker(users, fit[-1].name),
            language="plpgsql",
            definer=True,
            output=True,
        ),
        Function("role", "", "text", f"SELECT a.role FROM {SCHEMA}.asker() AS a"),
        Function("uid", "", "json", f"SELECT a.id FROM {SCHEMA}.asker() AS a"),
        Function("bypasses", "", "boolean", f"SELECT a.bypasses FROM {SCHEMA}.asker() AS a"),
        Function("holds", "text, text", "boolean", _holds(users), definer=True),
    ]


def _asker(users: Users, fit: str) -> str:
    fits = f"{SCHEMA}.{fit}(to_json(named)) IS NOT NULL"
    named = f"u.{identifier(users.key)} = {SCHEMA}.{fit}(to_json(named))"
    if users.kind is Kind.INT:
        # "+7" and " 7" would be read as numbers, but name no user.
        named += f" AND u.{identifier(users.key)}::text = named"
    elif users.kind is Kind.UUID:
        named += " AND named !~ '[[:space:]]'"
    return _ASKER.format(
        schema=SCHEMA,
        user_id_claim=literal(users.user_id_claim),
        role_claim=literal(users.role_claim),
        default_role="NULL" if users.default_role is None else literal(users.default_role),
        roles=", ".join(map(literal, ROLES if users.may_bypass else ROLES[:-1])),
        mapped=str(users.mapped).lower(),
        may_bypass=str(users.may_bypass).lower(),
        fits=fits,
        key=identifier(users.key),
        is_active=_flag(users.active),
        is_superuser=_flag(users.superuser),
        table=users.table,
        is_named=named,
    )


def _flag(column: str | bool) -> str:
    if isinstance(column, bool):
        return str(column).lower()
    return f"u.{identifier(column)}"


def _holds(users: Users) -> str:
    if users.holding is None:
        return "SELECT false"
    tables = {"permissions", "content_types", "user_permissions", "user_groups"}
    tables.add("group_permissions")
    names = {
        name: value if name in tables else identifier(value)
        for name in Holding.__slots__
        for value in [getattr(users.holding, name)]
    }
    return _HOLDS.format(schema=SCHEMA, **names)


def of_user(users: Users, name: str, expression: str, returns: str) -> Function:
    """The function `name` that gives `expression`, evaluated on the row `u` of the subject's
    user."""
    body = f"""
SELECT {expression} FROM {users.table} AS u
WHERE u.{identifier(users.key)} = (SELECT a.person FROM {SCHEMA}.asker() AS a)
"""
    # Print floats with all their digits, whatever the session's setting is.
    return Function(name, "", returns, body, definer=True, settings=("extra_float_digits = 1",))
