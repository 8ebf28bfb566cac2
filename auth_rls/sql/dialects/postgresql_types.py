"""Which types of PostgreSQL hold what a field's kind says, and which only look as if they did.

A table that Django did not make may have a column of another type than its field's: an enum, a
domain, money. Where every door reads its values alike it may be compared; elsewhere it is refused,
with the type and what would be right.

Pure: text only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from auth_rls.predicates.fit import EXACT, Fit
from auth_rls.predicates.kinds import Kind
from auth_rls.sql.dialects.base import StoredType

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

QUERY = """
WITH RECURSIVE cells AS (
    SELECT wanted.name AS table_name, a.attname::text AS column_name, a.atttypid AS typid,
        a.atttypmod AS typmod, a.attcollation AS collation_id,
        format_type(a.atttypid, a.atttypmod) AS shown
    FROM unnest(%s::text[], %s::text[]) AS wanted (name, quoted)
    JOIN pg_attribute AS a ON a.attrelid = to_regclass(wanted.quoted)
        AND a.attnum > 0 AND NOT a.attisdropped
), bases AS (
    SELECT * FROM cells
    UNION ALL
    SELECT b.table_name, b.column_name, t.typbasetype, t.typtypmod, b.collation_id, b.shown
    FROM bases AS b JOIN pg_type AS t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT b.table_name, b.column_name,
    CASE WHEN t.typtype = 'e' THEN 'enum' WHEN t.typname = 'citext' THEN 'citext'
        ELSE format_type(b.typid, b.typmod) END,
    b.shown, coalesce(NOT k.collisdeterministic, false)
FROM bases AS b
JOIN pg_type AS t ON t.oid = b.typid AND t.typtype <> 'd'
LEFT JOIN pg_collation AS k ON k.oid = b.collation_id
"""
"""Every column of the tables named: table, column, its type with domains resolved, the type as
declared, and whether its collation takes different texts for equal."""

# Without a modifier, such as a length: see `_fits_modifier`.
_SUITED: dict[Kind, frozenset[str]] = {
    Kind.BOOL: frozenset({"boolean"}),
    Kind.INT: frozenset({"smallint", "integer", "bigint"}),
    Kind.FLOAT: frozenset({"double precision"}),
    Kind.DECIMAL: frozenset({"numeric"}),
    Kind.TEXT: frozenset({"text", "character varying", "character", "bpchar", "enum", "citext"}),
    Kind.UUID: frozenset({"uuid"}),
    Kind.DATE: frozenset({"date"}),
    Kind.TIME: frozenset({"time without time zone"}),
    Kind.DATETIME: frozenset({"timestamp with time zone"}),
    Kind.INTERVAL: frozenset({"interval"}),
    Kind.INET: frozenset({"inet"}),
    Kind.JSON: frozenset({"jsonb"}),
    Kind.BINARY: frozenset({"bytea"}),
}
# What a write would round, so that what is stored is not what was judged.
_ROUNDING = frozenset({Kind.TIME, Kind.DATETIME, Kind.INTERVAL})
_MODIFIER = re.compile(r"\(([^)]*)\)")


def fit_of(column: Column, stored: StoredType) -> Fit:
    """Whether the column's values may be compared, and how."""
    plain = _MODIFIER.sub("", stored.name)
    if plain not in _SUITED[column.kind] or not _fits_modifier(column, stored.name):
        return Fit(
            f"the database has {column.name} as {stored.shown}, whose values are not compared as "
            f"{column.kind} everywhere alike; make the column {_wanted(column)}, or leave it out "
            "of policies and filters"
        )
    if stored.blurred and not column.collated:
        return Fit(
            f"the database has {column.name} as {stored.shown} with a collation that takes "
            "different texts for equal; name it in the field (db_collation), or leave the column "
            "out of policies and filters"
        )
    if plain == "citext":
        return Fit(ignores_case=True)
    return Fit(padded=True) if plain in ("character", "bpchar") else EXACT


def _fits_modifier(column: Column, name: str) -> bool:
    found = _MODIFIER.search(name)
    modifier = None if found is None else found[1]
    if column.kind is Kind.DECIMAL:
        scale = None if modifier is None else modifier.rpartition(",")[2].strip()
        return scale == (None if column.scale is None else str(column.scale))
    return column.kind not in _ROUNDING or modifier in (None, "6")


def _wanted(column: Column) -> str:
    if column.kind is Kind.DECIMAL and column.scale is not None:
        return f"numeric with {column.scale} decimal places"
    return " or ".join(sorted(_SUITED[column.kind] - {"bpchar", "character", "citext", "enum"}))
