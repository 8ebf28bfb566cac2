"""Kinds of columns, and the canonical Python value of each database value.

Predicates compare canonical values. They are made of a literal in a policy (`from_literal`), of the
text in a wire filter (`from_text`), of the JSON of a captured row (`from_row`, `from_image`) and of
a Python value (`from_python`). Values that are equal in the database become equal Python values.

| kind     | canonical value                                                |
|----------|----------------------------------------------------------------|
| BOOL     | bool                                                           |
| INT      | int within 64 bits, signed                                     |
| FLOAT    | float, never NaN                                               |
| DECIMAL  | Decimal, never NaN                                             |
| TEXT     | str                                                            |
| UUID     | str: lower case, with dashes                                   |
| DATE     | date                                                           |
| TIME     | time without zone, microseconds                                |
| DATETIME | datetime in UTC, microseconds                                  |
| INTERVAL | timedelta                                                      |
| INET     | str as PostgreSQL prints it                                    |
| JSON, BINARY | opaque: nothing but "is it NULL" may be asked              |

Pure: no Django, no I/O. The dialects own how a kind is written in SQL.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from auth_rls.predicates.datetimes import read_date, read_datetime, read_interval, read_time

_Reader = Callable[[Any], object]

INT_MIN = -(2**63)
INT_MAX = 2**63 - 1


class Kind(enum.StrEnum):
    """The kinds of column that predicates distinguish."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DECIMAL = "decimal"
    TEXT = "text"
    UUID = "uuid"
    DATE = "date"
    TIME = "time"
    DATETIME = "datetime"
    INTERVAL = "interval"
    INET = "inet"
    JSON = "json"
    BINARY = "binary"


OPAQUE = frozenset({Kind.JSON, Kind.BINARY})

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_UUID = re.compile(r"(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}", re.ASCII)
# PostgreSQL accepts any unambiguous prefix of these words; "o" could be on or off.
_TRUE_WORDS = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
_FALSE_WORDS = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})


def from_literal(kind: Kind, value: Any) -> object:
    """The canonical value of a JSON literal in a policy.

    Raises ValueError for another type, for a value out of the kind's range, and for NULL, which no
    comparison can use. Its text says what would be right.
    """
    if value is None:
        raise ValueError("null compares with nothing; use isnull")
    return _LITERAL[kind](value)


def from_text(kind: Kind, text: str) -> object:
    """The canonical value of the text in a wire filter, read as PostgreSQL would read it.

    Raises ValueError for a text that is no value of the kind. Its text says what would be right.
    """
    if kind is Kind.TEXT:
        return _text(text)
    return _TEXT[kind](text.strip(" \t\n\r\f\v"))


def from_row(kind: Kind, value: Any) -> object:
    """The canonical value of a JSON value of a row; None, which is NULL, stays None.

    Raises ValueError for a value that is not of the kind, such as a word in an integer column of
    SQLite.
    """
    if value is None or kind in OPAQUE:
        return value
    return _ROW[kind](value)


def from_image(kind: Kind, value: Any) -> object:
    """As `from_row`, for a value that a capture trigger wrote. It also raises ValueError for a text
    in another form than the trigger's: a column of SQLite may have a text that looks like a value
    of its kind, and SQL does not treat it as one."""
    if value is None or kind in OPAQUE:
        return value
    return _IMAGE[kind](value)


def from_python(kind: Kind, value: Any) -> object:
    """The canonical value of a Python value: a model instance's attribute, a claim of a token.

    Text is read like a filter's text, so the claim "42" equals the integer 42; for a text column,
    an integer or a bool becomes text. None stays None. Raises ValueError for a value that cannot be
    of the kind.
    """
    if value is None or kind in OPAQUE:
        return value
    if isinstance(value, str):
        return from_text(kind, value)
    if isinstance(value, UUID):
        return from_text(kind, str(value))
    if kind is Kind.TEXT and isinstance(value, int):
        return ("true" if value else "false") if isinstance(value, bool) else str(value)
    if kind is Kind.DATETIME and isinstance(value, datetime):
        return (value if value.utcoffset() is not None else value.replace(tzinfo=UTC)).astimezone(
            UTC
        )
    if type(value) is _PYTHON_TYPES.get(kind):
        return value
    return _ROW[kind](value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, not {value!r}")


def _bool_text(text: str) -> bool:
    word = text.lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise ValueError(f"expected true or false, not {text!r}")


def _in_range(number: int) -> int:
    if INT_MIN <= number <= INT_MAX:
        return number
    raise ValueError("expected an integer of at most 64 bits")


def _int(value: Any) -> int:
    # bool is an int to Python, not to SQL.
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value)
    # isfinite converts to float first, so no huge exponent reaches int().
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return _in_range(int(value))
    raise ValueError(f"expected a whole number, not {value!r}")


def _int_text(text: str) -> int:
    if _INTEGER.fullmatch(text):
        return _in_range(int(text))
    raise ValueError(f"expected a whole number, not {text!r}")


def _float(value: Any) -> float:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number + 0.0  # -0.0 becomes 0.0, which is equal to it
        raise ValueError("expected a finite number")
    raise ValueError(f"expected a number, not {value!r}")


def _float_text(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return _float(float(text))
    raise ValueError(f"expected a number, not {text!r}")


def _float_row(value: Any) -> float:
    # A column may have the infinities, which literals may not.
    if value in ("Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, Decimal) and not value.is_nan():
        return float(value) + 0.0  # 9e999, SQLite's form of infinity, becomes infinity
    if isinstance(value, float) and math.isinf(value):
        return value
    return _float(value)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        # The shortest text of the float is the one that its author wrote.
        value = Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, Decimal):
        if value.is_finite():
            return value
        raise ValueError("expected a finite number")
    if isinstance(value, str):
        return _decimal_text(value)
    raise ValueError(f'expected a number, or its digits as text such as "12.50", not {value!r}')


def _decimal_text(text: str) -> Decimal:
    if _NUMBER.fullmatch(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            pass
    raise ValueError(f"expected a number, not {text!r}")


def _decimal_row(value: Any) -> Decimal:
    if value in ("Infinity", "-Infinity"):
        return Decimal(value)
    return _decimal(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("expected text without lone surrogates")
    return value


def _text_row(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, not {value!r}")


def _text_image(value: Any) -> str:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("no database compares a text with NUL characters")
    return _text_row(value)


def _decimal_image(value: Any) -> Decimal:
    if isinstance(value, str) and value not in ("Infinity", "-Infinity"):
        raise ValueError(f"expected a number, not {value!r}")
    return _decimal_row(value)


def _int_image(value: Any) -> int:
    if isinstance(value, int):
        return _int(value)
    raise ValueError(f"expected a whole number, not {value!r}")


def _written(form: str, read: _Reader) -> _Reader:
    """A reader of texts of this form alone."""
    pattern = re.compile(form, re.ASCII)

    def reader(value: Any) -> object:
        if isinstance(value, str) and pattern.fullmatch(value):
            return read(value)
        raise ValueError(f"not as the capture triggers write it: {value!r}")

    return reader


def _uuid(value: Any) -> str:
    if isinstance(value, str):
        text = value.lower()
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        if _UUID.fullmatch(text):
            hexa = text.replace("-", "")
            return f"{hexa[:8]}-{hexa[8:12]}-{hexa[12:16]}-{hexa[16:20]}-{hexa[20:]}"
    raise ValueError(f"expected a UUID such as 6c84fb90-12c4-11e1-840d-7b25c5ee775a, not {value!r}")


def _inet(value: Any) -> str:
    if isinstance(value, str):
        # PostgreSQL leaves out the mask of a single host.
        text = value.removesuffix("/32") if ":" not in value else value.removesuffix("/128")
        try:
            if "%" in text:
                raise ValueError  # a zone names an interface of one machine; no database stores it
            address = ipaddress.ip_address(text)
        except ValueError:
            pass
        else:
            mapped = getattr(address, "ipv4_mapped", None)
            return f"::ffff:{mapped}" if mapped else str(address)
    raise ValueError(f"expected an IP address such as 192.0.2.1 or 2001:db8::1, not {value!r}")


def _opaque(value: Any) -> object:
    raise ValueError("this column's values cannot be compared; only isnull applies")


_PYTHON_TYPES = {Kind.DATE: date, Kind.TIME: time, Kind.INTERVAL: timedelta}

_LITERAL: dict[Kind, _Reader] = {
    Kind.BOOL: _bool,
    Kind.INT: _int,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _text,
    Kind.UUID: _uuid,
    Kind.DATE: read_date,
    Kind.TIME: read_time,
    Kind.DATETIME: read_datetime,
    Kind.INTERVAL: read_interval,
    Kind.INET: _inet,
    Kind.JSON: _opaque,
    Kind.BINARY: _opaque,
}
_TEXT = _LITERAL | {
    Kind.BOOL: _bool_text,
    Kind.INT: _int_text,
    Kind.FLOAT: _float_text,
    Kind.DECIMAL: _decimal_text,
}
_ROW = _LITERAL | {
    Kind.FLOAT: _float_row,
    Kind.DECIMAL: _decimal_row,
    Kind.TEXT: _text_row,
}
_DAY, _TIME_OF_DAY = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(\.\d{1,9})?"
_IMAGE = _ROW | {
    Kind.INT: _int_image,
    Kind.DECIMAL: _decimal_image,
    Kind.TEXT: _text_image,
    Kind.UUID: _written("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", _uuid),
    Kind.DATE: _written(_DAY, read_date),
    Kind.TIME: _written(_TIME_OF_DAY, read_time),
    Kind.DATETIME: _written(rf"{_DAY}T{_TIME_OF_DAY}(\+00:00)?", read_datetime),
}
