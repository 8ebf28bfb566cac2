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
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from auth_rls.predicates import patterns
from auth_rls.predicates.fit import EXACT, Fit
from auth_rls.predicates.operators import operator_of

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

Sql = tuple[str, list[Any]]

TRUE, FALSE, UNKNOWN = "(1 = 1)", "(1 = 0)", "(NULL = 1)"


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
        write = operator_of(op).sql
        if write is None:
            raise ValueError(f"operator {op!r} has no exact SQL")
        return write(self, column, value, sql)

    def among(self, column: Column, values: Collection[Any], sql: str) -> Sql:
        """Whether the column is one of the values. No value, not even NULL, is one of none."""
        if not values:
            return FALSE, []
        return self.in_list(column, values, self.operand(column, sql, ordered=False))

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

    def folded_value(self, value: str) -> str:
        """A text that is compared with `folded`, folded in the same way."""
        return patterns.fold(value)

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
        """The value as the other side of a comparison. `up`: whether a value between two that
        the column can hold is rounded up; None: it is not rounded, so that no stored value
        equals it."""

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
