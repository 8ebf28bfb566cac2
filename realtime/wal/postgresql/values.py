"""Values of PostgreSQL as JSON text: expressions to be concatenated into the image of a row.

They give the same bytes as those of `sqlite` for the same row. Text only: no database is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from auth_rls.predicates.kinds import Kind
from realtime.wal.entry import ColumnInfo

# SQL for the type of the row `a` of pg_attribute, that of its base where it is a domain.
TYPE_NAME = """(
    WITH RECURSIVE types AS (
        SELECT a.atttypid AS id UNION ALL
        SELECT t.typbasetype FROM types JOIN pg_type AS t ON t.oid = types.id AND t.typtype = 'd'
    )
    SELECT format_type(types.id, NULL)
    FROM types JOIN pg_type AS t ON t.oid = types.id AND t.typtype <> 'd'
)"""
# concat() takes at most 100 arguments, and a column is two.
_CHUNK = 40


def quote_name(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A text literal, whatever standard_conforming_strings says."""
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


def plain(c: str) -> str:
    """Any value as to_json() prints it: numbers as they are, NaN and the infinities as text."""
    return f"to_json({c})::text"


def plain_cell(c: str) -> str:
    """A value as `plain`, or JSON's null. Of the type json: a cast to text would cost about as much
    as the value, and concat() needs none."""
    return f"coalesce(to_json({c}), 'null')"


def _interval(c: str) -> str:
    """As Django's duration_iso_string writes it. A month is 30 days, as PostgreSQL compares."""
    # extract(epoch) takes a year for 365.25 days.
    total = f"(extract(epoch from {c}) - extract(year from {c}) * 453600) * 1000000"
    parts = "abs(n) AS a, CASE WHEN n < 0 THEN '-' ELSE '' END AS sign"
    fields = (
        "to_char(div(a, 3600000000) % 24, 'FM00')",
        "to_char(div(a, 60000000) % 60, 'FM00')",
        "to_char(div(a, 1000000) % 60, 'FM00')",
        "CASE WHEN a % 1000000 = 0 THEN '' ELSE to_char(a % 1000000, '\".\"FM000000') END",
    )
    return (
        f"CASE WHEN isfinite({c}) THEN (SELECT concat('\"', sign, 'P', div(a, 86400000000), 'DT',"
        f" {fields[0]}, 'H', {fields[1]}, 'M', {fields[2]}, {fields[3]}, 'S\"')"
        f" FROM (SELECT {parts} FROM (SELECT trunc({total}) AS n) AS t) AS s)"
        f" ELSE {plain(c)} END"
    )


def _binary(c: str) -> str:
    return f"concat('\"', encode({c}, 'hex'), '\"')"


def _inet(c: str) -> str:
    # PostgreSQL writes ::a.b.c.d where Python and SQLite have hexadecimal groups.
    low = f"({c} - '::'::inet)"
    groups = f"'\"::', to_hex({low} >> 16), ':', to_hex({low} & 65535), '\"'"
    compatible = f"{c} <<= '::/96'::inet AND masklen({c}) = 128 AND {low} > 65535"
    other = plain(c)
    return (
        f"CASE WHEN family({c}) = 4 THEN {other}"
        f" WHEN {compatible} THEN concat({groups}) ELSE {other} END"
    )


def as_json_value(column: ColumnInfo, c: str, type_: str, zone: str) -> str:
    """An expression that row_to_json() prints as `cell` does."""
    if column.kind is Kind.FLOAT and type_ == "double precision":
        return f"{c} + 0"
    if (value := cell(column, c, type_, zone)) == plain_cell(c):
        return c
    return f"({value})::json"


def cell(column: ColumnInfo, c: str, type_: str, zone: str) -> str:
    """An expression that gives the value of `c` (such as `NEW."price"`) as JSON, of the type json
    or text, never NULL.

    `type_` is the type that the column has in the database: where it is not the one that its kind
    is stored as, the value is shown as it stands. `zone` is the time zone of moments whose
    relation says they have none.
    """
    if column.kind is Kind.FLOAT and type_ == "double precision":
        # Adding nothing makes -0 the 0 that it is everywhere else.
        return plain_cell(f"{c} + 0")
    if column.kind is Kind.INTERVAL and type_ == "interval":
        value = _interval(c)
    elif column.kind is Kind.BINARY and type_ == "bytea":
        value = _binary(c)
    elif column.kind is Kind.INET and type_ == "inet":
        value = _inet(c)
    elif column.kind is Kind.TEXT and type_ in ("character", "bpchar"):
        # Without the padding, which PostgreSQL's own comparisons do not see either.
        value = plain(f"{c}::text")
    elif column.type == "timestamp" and type_ == "timestamp with time zone":
        value = plain(f"({c} AT TIME ZONE {quote_text(zone)})")
    else:
        return plain_cell(c)
    return f"CASE WHEN {c} IS NULL THEN 'null' ELSE {value} END"


def concat(parts: Sequence[str]) -> str:
    """The parts as one text, in calls that are not too long."""
    while len(parts) > _CHUNK:
        parts = [
            f"concat({', '.join(parts[at : at + _CHUNK])})" for at in range(0, len(parts), _CHUNK)
        ]
    return f"concat({', '.join(parts)})"
