"""Which values of a SQLite column are of its kind, and the form in which they compare.

A column of SQLite takes values of any type, written by any program. The stream reads a row's image
as the capture triggers wrote it; a value that is not of its column's kind is unknown there. `known`
is the same in SQL: the value in the form in which it compares, or NULL. The capture triggers use
the guards of this module.

Pure: text only.
"""

from __future__ import annotations

from auth_rls.predicates.kinds import INT_MIN, Kind

READ_TEXT = "rowcast_text"
"""The function of a value's type and bytes, in hexadecimal digits, that gives the text that it is
to the stream, or NULL."""
READ_ADDRESS = "rowcast_inet"
"""The function of one text, as bytes, that gives the IP address it is, or NULL."""

DATE = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
CLOCK = "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]"
_CLOCK_OF_DAY = "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
HUGE = "1.7e308"
"""What finite decimals beyond the doubles compare as."""
# Beyond these a decimal does not fit an integer of 64 bits.
_EXACT = 9 * 10**18


def is_plain_text(c: str) -> str:
    """Text without NUL, at which SQLite's own functions would stop."""
    return f"typeof({c}) = 'text' AND instr({c}, char(0)) = 0"


def _octets(c: str) -> str:
    return f"length(CAST({c} AS BLOB))"


def _is_fraction(c: str, clock: int) -> str:
    """Whether the text ends after the clock (at index `clock`), or goes on with a point and up to
    nine digits."""
    return (
        f"({_octets(c)} = {clock} OR ({_octets(c)} <= {clock + 10}"
        f" AND substr({c}, {clock + 1}, 1) = '.'"
        f" AND substr({c}, {clock + 2}) NOT GLOB '*[^0-9]*'))"
    )


def is_datetime(c: str) -> str:
    """A moment as Django writes it, or with fewer digits; its date need not exist."""
    return (
        f"{is_plain_text(c)} AND substr({c}, 1, 19) GLOB '{DATE} {CLOCK}' AND {_is_fraction(c, 19)}"
    )


def is_time(c: str) -> str:
    """A time of day as Django writes it, or with fewer digits."""
    return f"{is_plain_text(c)} AND substr({c}, 1, 8) GLOB '{CLOCK}' AND {_is_fraction(c, 8)}"


def is_uuid(c: str) -> str:
    """A UUID as Django writes it, or all of it in capitals."""
    return (
        f"typeof({c}) = 'text' AND {_octets(c)} = 32"
        f" AND ({c} NOT GLOB '*[^0-9a-f]*' OR {c} NOT GLOB '*[^0-9A-F]*')"
    )


def is_interval(c: str) -> str:
    """Microseconds. abs() of the smallest integer overflows, which is an error."""
    return f"typeof({c}) = 'integer' AND {c} > {INT_MIN}"


def is_bool(c: str) -> str:
    return f"typeof({c}) = 'integer' AND {c} IN (0, 1)"


def known(kind: Kind, scale: int | None, c: str) -> str:
    """The value of column `c` as it compares, NULL where it is not of this kind.

    Decimals are multiplied to whole numbers, so that they compare exactly; moments and times have
    six digits of fraction. Percent signs are doubled, as in all SQL with parameters.
    """
    if kind is Kind.BOOL:
        return f"CASE WHEN {is_bool(c)} THEN {c} END"
    if kind is Kind.INT:
        return f"CASE WHEN typeof({c}) = 'integer' THEN {c} END"
    if kind is Kind.INTERVAL:
        return f"CASE WHEN {is_interval(c)} THEN {c} END"
    if kind is Kind.UUID:
        return f"CASE WHEN {is_uuid(c)} THEN lower({c}) END"
    if kind is Kind.FLOAT:
        return (
            f"CASE typeof({c}) WHEN 'real' THEN {c} WHEN 'integer' THEN CAST({c} AS REAL)"
            f" ELSE {_infinity(c)} END"
        )
    if kind is Kind.DECIMAL:
        return _decimal(c, scale)
    if kind is Kind.DATE:
        guard = f"{is_plain_text(c)} AND {c} GLOB '{DATE}'"
        return f"CASE WHEN {guard} AND {_exists(c)} THEN {c} END"
    if kind is Kind.TIME:
        guard = f"{is_time(c)} AND {_is_clock(f'substr({c}, 1, 8)')}"
        return f"CASE WHEN {guard} THEN {_padded(c, 8)} END"
    if kind is Kind.DATETIME:
        day, clock = f"substr({c}, 1, 10)", f"substr({c}, 12, 8)"
        guard = f"{is_datetime(c)} AND {_exists(day)} AND {_is_clock(clock)}"
        return f"CASE WHEN {guard} THEN {_padded(c, 19)} END"
    if kind is Kind.INET:
        return f"CASE WHEN typeof({c}) = 'text' THEN {READ_ADDRESS}(CAST({c} AS BLOB)) END"
    if kind is Kind.TEXT:
        # Most texts are ASCII and need no call of a Python function.
        plain = f"{is_plain_text(c)} AND {c} NOT GLOB '*[^\x01-\x7f]*'"
        return f"CASE WHEN {plain} THEN {c} ELSE {READ_TEXT}(typeof({c}), hex({c})) END"
    return c


def _infinity(c: str) -> str:
    # The triggers write the infinities by these words.
    return f"CASE {c} WHEN 'Infinity' THEN 9e999 WHEN '-Infinity' THEN -9e999 END"


def _exists(day: str) -> str:
    """Whether a date exists in the calendar, from the year 1 on."""
    return f"{day} >= '0001-01-01' AND date({day}, '+0 days') = {day}"


def _is_clock(clock: str) -> str:
    return f"{clock} GLOB '{_CLOCK_OF_DAY}' AND {clock} < '24'"


def _padded(c: str, clock: int) -> str:
    """With six digits of fraction."""
    point = f"CASE WHEN length({c}) = {clock} THEN '.' ELSE '' END"
    return f"substr({c} || {point} || '000000', 1, {clock + 7})"


def _decimal(c: str, scale: int | None) -> str:
    if scale is None:
        return (
            f"CASE WHEN typeof({c}) IN ('integer', 'real') THEN CAST(json_quote({c}) AS REAL)"
            f" ELSE {_infinity(c)} END"
        )
    power = 10**scale
    printed = f"CAST(replace(printf('%%.{scale}f', {c}), '.', '') AS INTEGER)"
    return (
        f"CASE typeof({c}) WHEN 'integer' THEN {c} * {power}"
        f" WHEN 'real' THEN CASE WHEN abs({c}) < {_EXACT / power!r} THEN {printed}"
        f" WHEN {c} - {c} = 0 THEN max(min({c} * {power}.0, {HUGE}), -{HUGE}) ELSE {c} END"
        f" ELSE {_infinity(c)} END"
    )
