"""Casts in SQL: a JSON value of a claim or of the user's row as a value of a column's kind.

Owns one database function for each kind, which does the same as `kinds.from_python`: a value that
cannot be of the kind becomes NULL, and no cast raises. They take json and not jsonb, because jsonb
loses the spelling of a number: as text the number 1 is "1", and 1.0 is no text.

Pure: text only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from auth_rls.export.quoting import SCHEMA, Function
from auth_rls.predicates.kinds import Kind

_TRIMMED = r"btrim(value #>> '{}', E' \t\n\r\f\x0b')"
_NUMBER = "^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]{1,4})?$"
_CLOCK = "([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.]([0-9]{1,9}))?)?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEXA = "([0-9a-f]{4}-?){7}[0-9a-f]{4}"

# A number with a fraction or an exponent, as Python reads it: NULL where it is too large for a
# double, zero where it is too small. PostgreSQL would raise for both.
_DOUBLE = """
SELECT CASE
  WHEN abs(exact.n) < 2.4703282292062328e-324 THEN 0
  WHEN abs(exact.n) < 1.7976931348623158079e308 THEN digits::float8
END
FROM (SELECT digits::numeric AS n) AS exact
"""

_DAY = """
SELECT CASE WHEN y >= 1 AND m BETWEEN 1 AND 12 THEN
  CASE WHEN d BETWEEN 1 AND
    extract(day FROM make_date(y, m, 1) + interval '1 month' - interval '1 day')
  THEN make_date(y, m, d) END
END
"""

# Digits beyond the microsecond are cut off, where PostgreSQL would round.
_TIME_OF_DAY = """
SELECT CASE WHEN h <= 23 AND m <= 59 AND coalesce(s, 0) <= 59 THEN
  make_time(h, m, coalesce(s, 0)
    + left(rpad(coalesce(fraction, ''), 6, '0'), 6)::float8 / 1000000)
END
"""

_BOOL = f"""
SELECT CASE json_typeof(value)
  WHEN 'boolean' THEN value::text::boolean
  WHEN 'string' THEN CASE
    WHEN word.w IN ('t', 'tr', 'tru', 'true', 'y', 'ye', 'yes', 'on', '1') THEN true
    WHEN word.w IN ('f', 'fa', 'fal', 'fals', 'false', 'n', 'no', 'of', 'off', '0') THEN false
  END
END
FROM (SELECT lower({_TRIMMED} COLLATE "C") AS w) AS word
"""

_INT = f"""
SELECT CASE WHEN whole.n BETWEEN -9223372036854775808 AND 9223372036854775807
  THEN whole.n::int8 END
FROM (
  SELECT CASE json_typeof(value)
    WHEN 'number' THEN CASE
      WHEN value::text ~ '^-?[0-9]+$' THEN value::text::numeric
      WHEN real.f = trunc(real.f) AND real.f >= -9223372036854775808::float8
        AND real.f < 9223372036854775808::float8 THEN real.f::int8::numeric
    END
    WHEN 'string' THEN CASE
      WHEN {_TRIMMED} ~ '^[+-]?[0-9]{{1,40}}$' THEN {_TRIMMED}::numeric
    END
  END AS n
  FROM (
    SELECT CASE WHEN json_typeof(value) = 'number' THEN {SCHEMA}.to_double(value::text) END AS f
  ) AS real
) AS whole
"""

_FLOAT = f"""
SELECT CASE json_typeof(value)
  WHEN 'number' THEN coalesce({SCHEMA}.to_double(value::text),
    CASE WHEN value::text LIKE '%.%' OR value::text ~* 'e' THEN
      CASE WHEN value::text LIKE '-%' THEN '-Infinity' ELSE 'Infinity' END::float8
    END)
  WHEN 'string' THEN CASE
    WHEN {_TRIMMED} ~ '{_NUMBER}' THEN {SCHEMA}.to_double({_TRIMMED})
  END
END
"""

_DECIMAL = f"""
SELECT CASE json_typeof(value)
  WHEN 'number' THEN CASE
    WHEN value::text ~ '^-?[0-9]+$' THEN value::text::numeric
    -- The fewest digits that mean this number, as Python has them: up to 15 are printed alike by
    -- all; where 16 lie halfway to the next number, PostgreSQL prints 17.
    WHEN abs(short.f) > 1e-300 AND {SCHEMA}.to_double(short.d::text) = short.f THEN short.d
    WHEN abs(short.f) > 1e-300 AND {SCHEMA}.to_double(btrim(short.e)) = short.f
      THEN btrim(short.e)::numeric
    ELSE short.f::text::numeric
  END
  WHEN 'string' THEN CASE WHEN {_TRIMMED} ~ '{_NUMBER}' THEN {_TRIMMED}::numeric END
END
FROM (
  SELECT real.f, real.f::numeric AS d, to_char(real.f, '9.999999999999999EEEE') AS e FROM (
    SELECT CASE WHEN json_typeof(value) = 'number' THEN {SCHEMA}.to_double(value::text) END AS f
  ) AS real
) AS short
"""

_TEXT = """
SELECT CASE json_typeof(value)
  WHEN 'string' THEN value #>> '{}'
  WHEN 'boolean' THEN value::text
  WHEN 'number' THEN CASE WHEN value::text ~ '^-?[0-9]+$' THEN value::text::numeric::text END
END
"""

_UUID = f"""
SELECT CASE
  WHEN word.w ~ '^({_HEXA}|[{{]{_HEXA}[}}])$' THEN translate(word.w, '{{}}-', '')::uuid
END
FROM (
  SELECT CASE json_typeof(value) WHEN 'string' THEN lower({_TRIMMED} COLLATE "C") END AS w
) AS word
"""

_DATE = f"""
SELECT {SCHEMA}.to_day(part.s[1]::int, part.s[2]::int, part.s[3]::int)
FROM (
  SELECT CASE json_typeof(value) WHEN 'string' THEN
    regexp_match({_TRIMMED}, '^([0-9]{{4}})-([0-9]{{1,2}})-([0-9]{{1,2}})$')
  END AS s
) AS part
"""

_TIME = f"""
SELECT {SCHEMA}.to_clock(part.s[1]::int, part.s[2]::int, part.s[3]::int, part.s[4])
FROM (
  SELECT CASE json_typeof(value) WHEN 'string' THEN
    regexp_match({_TRIMMED}, '^{_CLOCK}$')
  END AS s
) AS part
"""

_DATETIME = f"""
SELECT CASE
  WHEN utc.t BETWEEN '0001-01-01 00:00:00'::timestamp AND '9999-12-31 23:59:59.999999'::timestamp
  THEN utc.t AT TIME ZONE 'UTC'
END
FROM (
  SELECT {SCHEMA}.to_day(part.s[1]::int, part.s[2]::int, part.s[3]::int)
    + CASE WHEN part.s[4] IS NULL THEN '00:00'::time
        ELSE {SCHEMA}.to_clock(part.s[4]::int, part.s[5]::int, part.s[6]::int, part.s[7]) END
    - (CASE part.s[8] WHEN '-' THEN -1 ELSE 1 END) * make_interval(
        hours => coalesce(part.s[9]::int, 0),
        mins => coalesce(part.s[10]::int, 0),
        secs => coalesce(part.s[11]::int, 0)) AS t
  FROM (
    SELECT CASE json_typeof(value) WHEN 'string' THEN regexp_match({_TRIMMED},
      '^([0-9]{{4}})-([0-9]{{1,2}})-([0-9]{{1,2}})(?:[Tt ]{_CLOCK}'
      '(?: *[Zz]| *([+-])([0-9]{{2}})(?::?([0-9]{{2}})(?::?([0-9]{{2}}))?)?)?)?$')
    END AS s
  ) AS part
) AS utc
"""

# In microseconds. Each half must itself be within the range of a timedelta, as in Python.
_SPAN = """
SELECT CASE
  WHEN first BETWEEN bound.least AND bound.most AND second BETWEEN bound.least AND bound.most
    AND first + second BETWEEN bound.least AND bound.most
    AND whole.n BETWEEN bound.least AND bound.most
  THEN div(whole.n - rest.n, 86400000000)::int * interval '1 day'
    + rest.n::float8 * interval '1 microsecond'
END
FROM (
  SELECT -999999999 * 86400000000::numeric AS least, 1000000000 * 86400000000::numeric - 1 AS most
) AS bound,
LATERAL (SELECT sign * (first + second) AS n) AS whole,
LATERAL (SELECT mod(mod(whole.n, 86400000000) + 86400000000, 86400000000) AS n) AS rest
"""

_MICRO = "left(rpad(coalesce({0}, ''), 6, '0'), 6)::numeric"
_INTERVAL = f"""
SELECT CASE
  WHEN iso.s IS NOT NULL THEN CASE
    WHEN coalesce(iso.s[2], iso.s[3], iso.s[4], iso.s[5], iso.s[7]) IS NOT NULL
    THEN {SCHEMA}.to_span(CASE iso.s[1] WHEN '-' THEN -1 ELSE 1 END,
      coalesce(iso.s[2]::numeric, 0) * 604800000000 + coalesce(iso.s[3]::numeric, 0) * 86400000000
        + coalesce(iso.s[4]::numeric, 0) * 3600000000 + coalesce(iso.s[5]::numeric, 0) * 60000000,
      (CASE iso.s[6] WHEN '-' THEN -1 ELSE 1 END)
        * (coalesce(iso.s[7]::numeric, 0) * 1000000 + {_MICRO.format("iso.s[8]")}))
  END
  WHEN own.s IS NOT NULL AND coalesce(own.s[1], own.s[3]) IS NOT NULL
  THEN {SCHEMA}.to_span(1,
    coalesce(own.s[1]::numeric, 0) * 86400000000,
    (CASE own.s[2] WHEN '-' THEN -1 ELSE 1 END)
      * (coalesce(own.s[3]::numeric, 0) * 3600000000 + coalesce(own.s[4]::numeric, 0) * 60000000
        + coalesce(own.s[5]::numeric, 0) * 1000000 + {_MICRO.format("own.s[6]")}))
END
FROM (SELECT CASE json_typeof(value) WHEN 'string' THEN {_TRIMMED} END AS t) AS word,
LATERAL (SELECT regexp_match(word.t,
  '^([+-]?)P(?:(-?[0-9]{{1,10}})W)?(?:(-?[0-9]{{1,10}})D)?(?:T(?:(-?[0-9]{{1,10}})H)?'
  '(?:(-?[0-9]{{1,12}})M)?(?:(-?)([0-9]{{1,14}})(?:[.]([0-9]{{1,9}}))?S)?)?$') AS s) AS iso,
LATERAL (SELECT regexp_match(word.t,
  '^(?:([+-]?[0-9]{{1,10}}) ?days? *)?'
  '(?:([+-]?)([0-9]{{1,10}}):([0-9]{{2}})(?::([0-9]{{2}})(?:[.]([0-9]{{1,9}}))?)?)?$') AS s) AS own
"""

_INET = f"""
DECLARE
  word text;
BEGIN
  IF json_typeof(value) <> 'string' THEN
    RETURN NULL;
  END IF;
  word := {_TRIMMED};
  IF word ~ '^{_BYTE}([.]{_BYTE}){{3}}(/32)?$' THEN
    RETURN word::inet;
  ELSIF word ~* '^[0-9a-f:]*:[0-9a-f:]*({_BYTE}([.]{_BYTE}){{3}})?(/128)?$' THEN
    RETURN word::inet;
  END IF;
  RETURN NULL;
EXCEPTION WHEN invalid_text_representation THEN
  RETURN NULL;
END
"""


def _fit(name: str, returns: str, body: str, arguments: str = "value json") -> Function:
    return Function(name, arguments, returns, body, volatility="IMMUTABLE", strict=True)


_to_double = _fit("to_double", "float8", _DOUBLE, "digits text")
_to_day = _fit("to_day", "date", _DAY, "y int, m int, d int")
_to_clock = replace(
    _fit("to_clock", "time", _TIME_OF_DAY, "h int, m int, s int, fraction text"), strict=False
)
_to_span = _fit("to_span", "interval", _SPAN, "sign int, first numeric, second numeric")
# The shortest digits that read back as the number, whatever the session's setting is.
_to_decimal = replace(_fit("to_decimal", "numeric", _DECIMAL), settings=("extra_float_digits = 1",))
# A function that catches an error cannot run in a parallel worker.
_to_inet = replace(_fit("to_inet", "inet", _INET), language="plpgsql", parallel="UNSAFE")

FITS: Mapping[Kind, tuple[Function, ...]] = {
    Kind.BOOL: (_fit("to_bool", "boolean", _BOOL),),
    Kind.INT: (_to_double, _fit("to_int", "int8", _INT)),
    Kind.FLOAT: (_to_double, _fit("to_float", "float8", _FLOAT)),
    Kind.DECIMAL: (_to_double, _to_decimal),
    Kind.TEXT: (_fit("to_text", "text", _TEXT),),
    Kind.UUID: (_fit("to_uuid", "uuid", _UUID),),
    Kind.DATE: (_to_day, _fit("to_date", "date", _DATE)),
    Kind.TIME: (_to_clock, _fit("to_time", "time", _TIME)),
    Kind.DATETIME: (_to_day, _to_clock, _fit("to_datetime", "timestamptz", _DATETIME)),
    Kind.INTERVAL: (_to_span, _fit("to_interval", "interval", _INTERVAL)),
    Kind.INET: (_to_inet,),
}
"""The functions of each kind: the cast itself last, after those it calls."""
