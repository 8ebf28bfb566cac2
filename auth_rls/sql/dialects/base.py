"""The interface of a dialect: how a database writes one comparison. Each vendor has a module.

The SQL of a dialect has the result of `predicates/evaluate.py`: text is compared by code point,
case is ignored for ASCII letters only, and NULL is unknown to everything but the null tests.
Django's own lookups are not used: they differ between vendors (LIKE on SQLite ignores case) and
have exceptions (`exact` of an empty text, of a bool, of a large integer).

Values of a column are expected in the form in which Django stores them.

Pure: text and parameters. Nothing here talks to a database.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from auth_rls.predicates import patterns
from auth_rls.predicates.fit import EXACT, Fit

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

Sql = tuple[str, list[Any]]

TRUE, FALSE, UNKNOWN = "(1 = 1)", "(1 = 0)", "(NULL = 1)"

SIGNS = {"exact": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
"""Operators that SQL writes by a sign."""
# Whether a literal between two storable values is rounded up; None: it is not rounded, so that no
# stored value equals it.
_ROUNDING = {"exact": None, "gt": False, "gte": True, "lt": True, "lte": False}


@dataclass(frozen=True, slots=True)
class StoredType:
    """The type that a column has in the database: `name` as far as it counts for comparisons,
    `shown` as its table declares it. `blurred`: its collation takes different texts for equal."""

    name: str
    shown: str
    blurred: bool = False


class Dialect(ABC):
    """How a database writes comparisons. Methods return SQL text with %s and its parameters; `sql`
    is the column's own SQL, without parameters."""

    distinct: ClassVar[str]
    """The operator of `isdistinct`."""
    exports_policies: ClassVar[bool] = False
    """Whether the database has row security that `export_rls` can write."""

    def stored_types(self, tables: Mapping[str, str]) -> Sql | None:
        """A query of the types of these tables, by name with the name quoted: a table, a column
        and the three values of a `StoredType` in a row. None where columns have no types that
        count, since every value is judged by its own."""
        return None

    def fit_of(self, column: Column, stored: StoredType) -> Fit:
        """How the type that the column has in the database suits its kind."""
        return EXACT

    def compare(
        self, column: Column, op: str, value: Any, sql: str, *, positive: bool = False
    ) -> Sql:
        """One test of a column with a bound value, as text that may be used in AND, OR and NOT.

        `positive`: the test is under no NOT, so it may be unknown instead of false. Raises
        ValueError for an operator without SQL of the meaning that evaluate.py has.
        """
        if op == "isnull":
            return self.is_null(column, value, sql), []
        if op == "is" and value is not None:
            return self.is_bool(column, sql, value), []
        if op == "is":
            return self.is_null(column, True, sql), []
        if op == "isdistinct" and value is None:
            return self.is_null(column, False, sql), []
        operand = self.operand(column, sql, ordered=op not in ("exact", "in", "isdistinct"))
        if op == "isdistinct":
            literal, params = self.literal(column, value, up=None)
            return self.is_distinct(column, sql, operand, literal), params
        if op in SIGNS:
            literal, params = self.literal(column, value, up=_ROUNDING[op])
            return f"{operand} {SIGNS[op]} {literal}", params
        if op == "range":
            low, high = value
            low_literal, low_params = self.literal(column, low, up=True)
            high_literal, high_params = self.literal(column, high)
            return f"{operand} BETWEEN {low_literal} AND {high_literal}", [
                *low_params,
                *high_params,
            ]
        if op == "in":
            return self.in_list(column, value, operand) if value else (FALSE, [])
        return self.text(op, value, self.as_text(column, sql))

    def as_text(self, column: Column, sql: str) -> str:
        """A text column in the form that the operators on text need."""
        return sql

    def is_distinct(self, column: Column, sql: str, operand: str, literal: str) -> str:
        """Whether the column differs from a value; NULL differs."""
        return f"{operand} {self.distinct} {literal}"

    def membership(
        self, column: Column, sql: str, subquery: str, params: list[Any], *, positive: bool = False
    ) -> Sql:
        """Whether the column is in a subquery, whose values were written by `member`."""
        return f"{self.operand(column, sql, ordered=False)} IN {subquery}", params

    def is_null(self, column: Column, value: bool, sql: str) -> str:
        """Whether the column is NULL, or (`value` False) is not."""
        return f"{self.nullable(column, sql)} IS {'' if value else 'NOT '}NULL"

    def text(self, op: str, value: str, sql: str) -> Sql:
        """The operators on text alone."""
        if op in ("iexact", "icontains", "istartswith", "iendswith", "ilike"):
            # With the column's side folded, the case-sensitive operator serves.
            folded = self.folded(sql)
            value = patterns.fold(value)
            if op == "iexact":
                return f"{folded} = %s", [value]
            return self.text(op[1:], value, folded)
        if op == "contains":
            return self.contains(sql, value)
        if op == "startswith":
            return self.startswith(sql, value)
        if op == "endswith":
            return self.endswith(sql, value)
        if op == "like":
            return self.like(sql, value)
        raise ValueError(f"operator {op!r} has no exact SQL")

    @abstractmethod
    def nullable(self, column: Column, sql: str) -> str:
        """The column for the null tests: JSON's null becomes SQL's NULL."""

    @abstractmethod
    def is_bool(self, column: Column, sql: str, value: bool) -> str:
        """`column IS value`, where NULL is not."""

    @abstractmethod
    def operand(self, column: Column, sql: str, *, ordered: bool) -> str:
        """The column as one side of a comparison. `ordered`: the comparison is by order."""

    @abstractmethod
    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        """The value as the other side of a comparison. `up` as in _ROUNDING."""

    @abstractmethod
    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql:
        """Whether the operand is one of the values, of which there is at least one."""

    @abstractmethod
    def member(self, outer: Column, inner: Column, prefix: str, sql: str) -> Sql:
        """A value of a select's inner column in the form that the outer one is compared with."""

    @abstractmethod
    def folded(self, sql: str) -> str:
        """The text with A-Z as a-z and nothing else changed."""

    @abstractmethod
    def contains(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def startswith(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def endswith(self, sql: str, value: str) -> Sql: ...

    @abstractmethod
    def like(self, sql: str, pattern: str) -> Sql: ...
