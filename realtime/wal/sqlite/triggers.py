"""The text of the capture triggers on SQLite. Never talks to a database.

A trigger runs inside the user's own write, so nothing in it may fail whatever the row holds: a
column of SQLite takes values of any type, and a JSON function that refuses one would refuse the
write. Each value is therefore rendered only after `typeof` has said that it is what its column's
kind expects; anything else becomes a JSON string (or a number). For the same reason the image is
concatenated rather than built by json_object(), which takes no BLOB and at most 63 columns.

Values look as PostgreSQL's to_jsonb() prints them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence

from auth_rls.predicates.kinds import Kind
from auth_rls.sql.dialects.sqlite_values import (
    is_bool,
    is_datetime,
    is_interval,
    is_time,
    is_uuid,
)
from realtime.wal.entry import ColumnInfo, Relation

PREFIX = "rowcast_"

# The function that `SqliteActorWrapper` answers, and the questions: who writes, and in which
# transaction. Their numbers of characters differ. Without the wrapper the function returns the text
# of the characters.
ANSWERED_FUNCTION = "char"
ACTOR_CODES = tuple(0xE000 + ord(letter) for letter in "rowcast.actor")
TRANSACTION_CODES = tuple(0xE000 + ord(letter) for letter in "rowcast.tx")


def _answer(codes: tuple[int, ...]) -> str:
    """An expression for the answer; NULL without the wrapper."""

    def asked(part: tuple[int, ...]) -> str:
        return f"{ANSWERED_FUNCTION}({', '.join(map(str, part))})"

    middle = len(codes) // 2
    return f"nullif({asked(codes)}, {asked(codes[:middle])} || {asked(codes[middle:])})"


_ACTOR = _answer(ACTOR_CODES)
_TRANSACTION = _answer(TRANSACTION_CODES)

# Microseconds since 1970.
NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


def quote_name(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A text literal."""
    return "'" + text.replace("'", "''") + "'"


def balanced(parts: Sequence[str], operator: str) -> str:
    """The parts joined by an associative operator, as a tree of logarithmic depth.

    SQLite refuses an expression deeper than 1,000, which a chain over a wide table would be.
    """
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left, right = balanced(parts[:middle], operator), balanced(parts[middle:], operator)
    return f"({left} {operator} {right})"


def _garbage(c: str) -> str:
    """Any value as JSON, for a value that is not of its column's kind."""
    return (
        f"CASE typeof({c}) WHEN 'blob' THEN '\"' || lower(hex({c})) || '\"'"
        f" WHEN 'real' THEN {_finite(c, f'json_quote({c})')}"
        f" ELSE json_quote({c}) END"
    )


def _finite(c: str, rendered: str) -> str:
    # Infinity minus itself is NULL in SQLite, and 0 for every other number.
    return (
        f"CASE WHEN {c} - {c} = 0 THEN {rendered}"
        f" WHEN {c} > 0 THEN '\"Infinity\"' ELSE '\"-Infinity\"' END"
    )


def _float(c: str) -> str:
    """The fewest of 15, 16 and 17 digits that read back as the same double, as PostgreSQL writes
    them: with an exponent below 1e-4 and from 1e15 on.

    CAST does not tell whether some digits suffice: it is now and then off by one unit in the last
    place. Instead they are taken as an integer m and a power of ten: for up to 10**22 both are
    exact doubles, and a single division or multiplication rounds correctly. That needs an m of at
    most 2**53, or an even one; a larger odd one of 16 digits is written with 17. Where
    printf may round the 17th digit wrongly, 18 are written. Beyond 1e50 and below 1e-50 some
    versions of SQLite cannot print a double exactly at all; there the last place may be off by one.
    """
    plain = f"abs({c}) BETWEEN 1e-4 AND 1e15"
    precise = (
        f"(SELECT CASE WHEN {plain} THEN printf('%!.17g', {c}) ELSE printf('%!.17e', {c}) END)"
    )
    digits = (
        f"coalesce({_if_exact(c, 15)}, {_if_exact(c, 16)},"
        # A mantissa of one digit needs no point.
        f" replace({precise}, '.0e', 'e'))"
    )
    whole = f"abs({c}) < 1e15 AND {c} = CAST({c} AS INTEGER)"
    return _finite(
        c, f"CASE WHEN {whole} THEN CAST(CAST({c} AS INTEGER) AS TEXT) ELSE {digits} END"
    )


def _if_exact(c: str, digits: int) -> str:
    """The number with so many digits, or NULL when they are too few or it is not known."""
    text = f"(SELECT printf('%!.{digits - 1}e', {c}) AS t)"
    split = f"(SELECT t, instr(t, 'e') AS e FROM {text})"
    parts = (
        "(SELECT t, substr(t, 1, e - 1) AS mantissa, CAST(substr(t, e + 1) AS INTEGER) AS power"
        f" FROM {split})"
    )
    scaled = (
        "(SELECT t, power, CAST(replace(mantissa, '.', '') AS INTEGER) AS m,"
        f" length(mantissa) - instr(mantissa, '.') - power AS k FROM {parts})"
    )
    exact = "CASE WHEN k < 0 THEN m * CAST('1e' || -k AS REAL) ELSE m / CAST('1e' || k AS REAL) END"
    known = f"abs(k) <= 22 AND (abs(m) <= {2**53} OR m % 2 = 0) AND {exact} = {c}"
    shown = (
        f"CASE WHEN power BETWEEN -4 AND 14 THEN printf('%!.{digits}g', {c})"
        " ELSE replace(t, '.0e', 'e') END"
    )
    return f"(SELECT CASE WHEN {known} THEN {shown} END FROM {scaled})"


def _decimal(c: str, scale: int) -> tuple[tuple[str, str], ...]:
    zeros = f" || '.{'0' * scale}'" if scale else ""
    return (
        (f"typeof({c}) = 'integer'", f"CAST({c} AS TEXT){zeros}"),
        (f"typeof({c}) = 'real'", _finite(c, f"printf('%.{scale}f', {c})")),
    )


def _fraction(c: str, start: int) -> str:
    """`.ffffff` without trailing zeros, and without the point when nothing is left."""
    return f"rtrim(rtrim(substr({c}, {start}), '0'), '.')"


def _datetime(c: str, zone: str) -> tuple[str, str]:
    text = f"substr({c}, 1, 10) || 'T' || substr({c}, 12, 8) || {_fraction(c, 20)}"
    return is_datetime(c), f"'\"' || {text} || '{zone}\"'"


def _apart(c: str, guard: str) -> tuple[str, str]:
    """A text that might be taken for one of the column's kind is written as an object."""
    return f"typeof({c}) = 'text' AND {guard}", f"'{{\"text\":' || json_quote({c}) || '}}'"


def _time(c: str) -> tuple[str, str]:
    return is_time(c), f"'\"' || substr({c}, 1, 8) || {_fraction(c, 9)} || '\"'"


def _interval(c: str) -> tuple[str, str]:
    """Microseconds as Django's duration_iso_string writes them."""
    guard = is_interval(c)
    a = f"abs({c})"
    fraction = f"CASE WHEN {a} % 1000000 THEN printf('.%06d', {a} % 1000000) ELSE '' END"
    return guard, (
        f"printf('\"%sP%dDT%02dH%02dM%02d%sS\"', CASE WHEN {c} < 0 THEN '-' ELSE '' END,"
        f" {a} / 86400000000, {a} / 3600000000 % 24, {a} / 60000000 % 60, {a} / 1000000 % 60,"
        f" {fraction})"
    )


def _dashed(c: str) -> tuple[str, str]:
    guard = is_uuid(c)
    slices = ", ".join(f"substr({c}, {at}, {n})" for at, n in _UUID_SLICES)
    return guard, f"lower(printf('%s-%s-%s-%s-%s', {slices}))"


_UUID_SLICES = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


def _uuid(c: str) -> tuple[str, str]:
    guard, text = _dashed(c)
    return guard, f"'\"' || {text} || '\"'"


def _binary(c: str) -> tuple[str, str]:
    return f"typeof({c}) IN ('blob', 'text')", f"'\"' || lower(hex({c})) || '\"'"


def _json(c: str) -> tuple[str, str]:
    return f"typeof({c}) = 'text' AND json_valid({c})", f"json({c})"


_Case = tuple[str, str]
_RENDER: dict[Kind, Callable[[str], _Case]] = {
    Kind.BOOL: lambda c: (
        is_bool(c),
        f"CASE WHEN {c} THEN 'true' ELSE 'false' END",
    ),
    Kind.FLOAT: lambda c: (f"typeof({c}) = 'real'", _float(c)),
    Kind.TIME: _time,
    Kind.JSON: _json,
    Kind.BINARY: _binary,
}


def cell(column: ColumnInfo, c: str, scale: int | None = None) -> str:
    """An expression that gives the value of `c` (such as `NEW."price"`) as JSON text.

    It is never NULL and never an error. `scale` is the number of decimal places of a DECIMAL.
    """
    cases: tuple[_Case, ...]
    if column.kind is Kind.DECIMAL and scale is not None:
        cases = _decimal(c, scale)
    elif column.kind is Kind.DATETIME:
        moment = _datetime(c, "" if column.type == "timestamp" else "+00:00")
        cases = (moment, _apart(c, f"substr({c}, 11, 1) = 'T'"))
    elif column.kind is Kind.INTERVAL:
        cases = (_interval(c), _apart(c, f"{c} GLOB '*[0-9]*'"))
    elif column.kind is Kind.UUID:
        cases = (_uuid(c), _apart(c, f"length({c}) = 36"))
    elif column.kind in _RENDER:
        cases = (_RENDER[column.kind](c),)
    else:
        return _garbage(c)
    whens = " ".join(f"WHEN {guard} THEN {text}" for guard, text in cases)
    return f"CASE {whens} ELSE {_garbage(c)} END"


def image(relation: Relation, row: str, scales: Mapping[str, int]) -> str:
    """An expression that gives the row (`NEW` or `OLD`) as a JSON object, in column order."""
    parts = []
    for position, column in enumerate(relation.columns):
        lead = ("," if position else "{") + json.dumps(column.name, ensure_ascii=False) + ":"
        value = cell(column, f"{row}.{quote_name(column.name)}", scales.get(column.name))
        parts.append(f"{quote_text(lead)} || {value}")
    return balanced([*parts, "'}'"], "||")


def key_text(relation: Relation, row: str, scales: Mapping[str, int]) -> str:
    """An expression for the row's key as people write it; a JSON array where it is composite."""
    columns = {column.name: column for column in relation.columns}
    names = [(columns[name], f"{row}.{quote_name(name)}") for name in relation.key]
    if len(names) == 1:
        column, c = names[0]
        plain = f"CASE typeof({c}) WHEN 'blob' THEN lower(hex({c})) ELSE CAST({c} AS TEXT) END"
        if column.kind is not Kind.UUID:
            return plain
        guard, text = _dashed(c)
        return f"CASE WHEN {guard} THEN {text} ELSE {plain} END"
    cells = [cell(column, c, scales.get(column.name)) for column, c in names]
    return "'[' || " + " || ',' || ".join(cells) + " || ']'"


def _changed(relation: Relation) -> str:
    # BINARY, because a column that ignores case would also ignore a change of case.
    names = [quote_name(column.name) for column in relation.columns]
    return balanced([f"OLD.{n} IS NOT NEW.{n} COLLATE BINARY" for n in names], "OR")


def _trigger(
    relation: Relation, op: str, scales: Mapping[str, int], wal_table: str, condition: str = ""
) -> tuple[str, str]:
    name = f"{PREFIX}{relation.table}_{op[0].lower()}"
    old = image(relation, "OLD", scales) if op != "INSERT" else "NULL"
    new = image(relation, "NEW", scales) if op != "DELETE" else "NULL"
    key = key_text(relation, "OLD" if op == "DELETE" else "NEW", scales)
    return name, (
        f"CREATE TRIGGER {quote_name(name)} AFTER {op} ON {quote_name(relation.table)}"
        f" FOR EACH ROW{condition} BEGIN"
        f" INSERT INTO {quote_name(wal_table)}"
        " (op, pk_text, old, new, relation_id, txid, captured_us, actor)"
        f" VALUES ('{op}', {key}, {old}, {new},"
        f" {quote_text(relation.id)}, {_TRANSACTION}, {NOW_US}, {_ACTOR}); END"
    )


def triggers(
    relation: Relation,
    *,
    scales: Mapping[str, int],
    whole: bool,
    ops: Collection[str] = ("INSERT", "UPDATE", "DELETE"),
    wal_table: str = "realtime_wal",
) -> dict[str, str]:
    """The statements that capture this relation, by trigger name.

    `whole`: every column of the table is captured, so every UPDATE is. Otherwise only an UPDATE
    that changed a captured column is: a login must not write an entry about a user if no policy
    reads `last_login`. `ops`: which of the three operations are captured.
    """
    condition = "" if whole else f" WHEN {_changed(relation)}"
    return dict(
        _trigger(relation, op, scales, wal_table, condition if op == "UPDATE" else "")
        for op in ("INSERT", "UPDATE", "DELETE")
        if op in ops
    )
