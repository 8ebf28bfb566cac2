"""Rendering: a policy as a CREATE POLICY statement, its predicate as SQL text without parameters.

Owns the SQL of references and selects; comparisons come from the same dialect as for querysets. A
reference is a subquery, so that it is evaluated once for a statement and not for each row. A select
is a function that runs with its owner's rights, because the subject may not be allowed to read the
table behind it; it takes no argument, since no select depends on the row.

A comparison without an SQL form is unknown, which lets no row through, and is noted. Inside a
select it makes the whole membership unknown: under a negation, a set that lacks a member would let
rows through.

Pure: text only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from auth_rls.export.json_casts import FITS
from auth_rls.export.quoting import SCHEMA, Function, digest, identifier, literal, shortened
from auth_rls.export.subject_functions import Users, of_user
from auth_rls.policy.rules import PolicyRule
from auth_rls.predicates.kinds import INT_MAX, INT_MIN, OPAQUE, Kind
from auth_rls.predicates.predicate import (
    TRUE,
    All,
    Const,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
)
from auth_rls.sql.dialects.base import FALSE as SQL_FALSE
from auth_rls.sql.dialects.base import TRUE as SQL_TRUE
from auth_rls.sql.dialects.base import UNKNOWN as SQL_UNKNOWN
from auth_rls.sql.dialects.base import Sql
from auth_rls.sql.dialects.postgresql import Postgresql, type_name

if TYPE_CHECKING:
    from auth_rls.sql.columns import Column

_WORDS = {"view": "SELECT", "add": "INSERT", "change": "UPDATE", "delete": "DELETE"}

# Placeholder of the column in a comparison. NUL cannot be part of a name.
_COLUMN = "\0"

# Kinds of the user's columns whose values pass through JSON unharmed.
_THROUGH_JSON = frozenset({Kind.BOOL, Kind.INT, Kind.TEXT, Kind.UUID, Kind.FLOAT, Kind.JSON})
_DIRECT = frozenset({Kind.DATE, Kind.TIME, Kind.DATETIME, Kind.INTERVAL, Kind.INET})


class Inexpressible(Exception):
    """A comparison or a setting without an equivalent in SQL; the text says why."""


@dataclass(frozen=True, slots=True)
class Raw:
    """SQL in the place of a literal."""

    sql: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its quoted name, and its columns."""

    name: str
    columns: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class _Operand:
    """The attributes of a column that a dialect reads, for a value that is not a column."""

    kind: Kind
    collated: bool = False
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class ParentRows:
    """The rows of a parent in multi-table inheritance on which an action is allowed. `column` is
    the child's link, `key` the column of the parent's `table` that it points to; `permission` and
    `rules` are the parent's, and `parents` describes the parent's own parents."""

    column: str
    table: Table
    key: str
    permission: tuple[str, str]
    rules: tuple[PolicyRule, ...]
    parents: tuple[ParentRows, ...] = ()


class _Dialect(Postgresql):
    """The dialect of PostgreSQL with values that may be Raw, because they are only known when the
    statement runs."""

    def literal(self, column: Column, value: Any, *, up: bool | None = False) -> Sql:
        if isinstance(value, Raw):
            return f"%s::{type_name(column.kind)}", [value]
        return super().literal(column, value, up=up)

    def in_list(self, column: Column, values: Iterable[Any], operand: str) -> Sql:
        if isinstance(values, Raw):
            return f"{operand} = ANY(%s::{type_name(column.kind)}[])", [values]
        if not any(isinstance(value, Raw) for value in values):
            # Sorted, so that equal policies give equal text.
            return super().in_list(column, sorted(values, key=repr), operand)
        placeholders, params = [], []
        for value in values:
            placeholder, found = self.literal(column, value)
            placeholders.append(placeholder)
            params += found
        return f"{operand} = ANY(ARRAY[{', '.join(placeholders)}])", params

    def folded_value(self, value: Any) -> Any:
        if isinstance(value, Raw):
            return Raw(f'lower({value.sql}::text COLLATE "C")')
        return super().folded_value(value)

    def endswith(self, sql: str, value: Any) -> Sql:
        if isinstance(value, Raw):
            text = f"{value.sql}::text"
            return f'right({sql} COLLATE "C", length(%s)) = %s', [Raw(text), Raw(text)]
        return super().endswith(sql, value)


_DIALECT = _Dialect()


class Renderer:
    """Renders the policies of one export, and collects the `functions` that they call and `notes`
    about comparisons without an SQL form."""

    def __init__(self, table_of: Callable[[str], Table], users: Users, user_table: Table) -> None:
        """`table_of` gives the table of an "app.Model"; it raises Inexpressible where there is
        none in this database."""
        self._table_of = table_of
        self._users = users
        self._user_table = user_table
        self.functions: dict[str, Function] = {}
        self.notes: list[str] = []
        self._about = ""

    def policy(
        self, table: Table, name: str, action: str, permission: tuple[str, str], rule: PolicyRule
    ) -> str:
        """The statement for one rule. `permission` is app label and codename."""
        self._about = f"policy {rule.name!r}"
        word = _WORDS[action]
        lines = [
            f"CREATE POLICY {identifier(name)} ON {table.name}",
            f"AS {'PERMISSIVE' if rule.mode == 'permissive' else 'RESTRICTIVE'}"
            f" FOR {word} TO PUBLIC",
        ]
        if action != "add":
            lines.append(f"USING ({self._clause(table, permission, rule, new_row=False)})")
        if action in ("add", "change"):
            lines.append(f"WITH CHECK ({self._clause(table, permission, rule, new_row=True)})")
        return "\n".join(lines)

    def inherited(self, table: Table, name: str, action: str, parents: Iterable[ParentRows]) -> str:
        """The statement by which an action on a child's row needs the same on its parents'
        rows."""
        self._about = f"the parents of {table.name}"
        word = _WORDS[action]
        lines = [
            f"CREATE POLICY {identifier(name)} ON {table.name}",
            f"AS RESTRICTIVE FOR {word} TO PUBLIC",
        ]
        of = tuple(parents)
        if action != "add":
            lines.append(f"USING ({BYPASSES} OR {self._of_parents(table, of, new_row=False)})")
        if action in ("add", "change"):
            lines.append(f"WITH CHECK ({BYPASSES} OR {self._of_parents(table, of, new_row=True)})")
        return "\n".join(lines)

    def _of_parents(self, table: Table, parents: Iterable[ParentRows], *, new_row: bool) -> str:
        parts = []
        for parent in parents:
            outer = table.columns[parent.column]
            type_ = type_name(outer.kind)
            body = self._allowed_keys(outer, parent, 1, new_row)
            set_name = f"set_{digest(f'{type_} {body}')[:12]}"
            function = Function(set_name, "", f"SETOF {type_}", body, definer=True)
            self.functions[set_name] = function
            left = _DIALECT.operand(outer, _cell(parent.column, 0), ordered=False)
            parts.append(f"{left} = ANY(ARRAY(SELECT {function.signature}))")
        return f"({' AND '.join(parts)})"

    def _allowed_keys(self, outer: Column, parent: ParentRows, level: int, new_row: bool) -> str:
        """The query of the keys of the parent's rows that the parent's policies let through."""
        permissive, parts = [], []
        for rule in parent.rules:
            concerned = _concerned(rule, parent.permission)
            try:
                asked = self._node(rule.predicate(new_row=new_row), parent.table, level)
            except Inexpressible as reason:
                self.notes.append(f"{self._about}: policy {rule.name!r}: {reason}; it denies")
                asked = SQL_UNKNOWN
            if rule.mode == "permissive":
                permissive.append(f"({concerned} AND {asked})")
            else:
                parts.append(f"(NOT {concerned} OR {asked})")
        parts.insert(0, f"({' OR '.join(permissive)})" if permissive else SQL_FALSE)
        for above in parent.parents:
            column = parent.table.columns[above.column]
            left = _DIALECT.operand(column, _cell(above.column, level), ordered=False)
            parts.append(f"{left} IN ({self._allowed_keys(column, above, level + 1, new_row)})")
        inner = parent.table.columns[parent.key]
        member = _inline(*_DIALECT.member(outer, inner, "", _COLUMN), _cell(parent.key, level))
        return (
            f"SELECT ({member})::{type_name(outer.kind)} FROM {parent.table.name} AS t{level} "
            f"WHERE {' AND '.join(parts)}"
        )

    def _clause(
        self, table: Table, permission: tuple[str, str], rule: PolicyRule, *, new_row: bool
    ) -> str:
        predicate = rule.predicate(new_row=new_row)
        asked = self.condition(predicate, table)
        concerned = _concerned(rule, permission)
        if rule.mode == "permissive":
            return concerned if predicate == TRUE else f"{concerned} AND {asked}"
        # Restrictive policies spare subjects that bypass row-level security.
        spared = BYPASSES if rule.audience == "anyone" else f"{BYPASSES} OR NOT {concerned}"
        return f"{spared} OR {asked}"

    def condition(self, predicate: Predicate, table: Table) -> str:
        """The SQL of a predicate on rows of `table`, in parentheses. It is only true where the
        predicate is true; where SQL cannot express the predicate it is unknown or false."""
        return self._node(predicate, table, 0)

    def _node(
        self, predicate: Predicate, table: Table, level: int, *, positive: bool = True
    ) -> str:
        """`level` is the number of selects around the node. `positive`: it is under no NOT, so it
        may be false instead of unknown."""
        if isinstance(predicate, Const):
            if predicate.value is None:
                return SQL_UNKNOWN
            return SQL_TRUE if predicate.value else SQL_FALSE
        if isinstance(predicate, Not):
            return f"(NOT {self._node(predicate.part, table, level, positive=False)})"
        if isinstance(predicate, Test | RefTest):
            try:
                if isinstance(predicate, RefTest):
                    return self._ref_node(predicate)
                return f"({self._test(predicate, table, level, positive)})"
            except Inexpressible as reason:
                if level:
                    raise
                name = predicate.column if isinstance(predicate, Test) else str(predicate.ref)
                self.notes.append(
                    f"{self._about}: {name}__{predicate.op}: {reason}; "
                    "in SQL this is unknown and lets nobody in"
                )
                return SQL_UNKNOWN
        if not predicate.parts:
            return SQL_TRUE if isinstance(predicate, All) else SQL_FALSE
        word = " AND " if isinstance(predicate, All) else " OR "
        parts = (self._node(part, table, level, positive=positive) for part in predicate.parts)
        return f"({word.join(parts)})"

    def _ref_node(self, test: RefTest) -> str:
        """A comparison of a value of the subject, which no row changes."""
        ref, value = test.ref, test.value
        if test.op == "isnull":
            null = self._is_missing(ref)
            return f"({null})" if value else f"(NOT ({null}))"
        if isinstance(value, Ref):
            value = self._list(value) if test.op == "in" else self._scalar(value)
        elif isinstance(value, tuple):
            value = tuple(self._scalar(v) if isinstance(v, Ref) else v for v in value)
        column: Any = _Operand(ref.kind)
        sql, params = _DIALECT.compare(column, test.op, value, _COLUMN)
        operand = f"({self._scalar(ref).sql})::{type_name(ref.kind)}"
        return f"({_inline(sql, params, operand)})"

    def _is_missing(self, ref: Ref) -> str:
        """Whether the subject has no such value: true or false, never unknown."""
        column = self._user_column(ref) if ref.source == "user" else None
        if column is None:
            return f"coalesce(json_typeof({self._json(ref)}), 'null') = 'null'"
        if column.kind not in OPAQUE:
            return f"{self._scalar(ref).sql} IS NULL"
        present = _DIALECT.is_null(column, False, f"u.{identifier(column.name)}")
        return f"(SELECT {self._of_user(column, present, 'boolean')}) IS NOT TRUE"

    def _test(self, test: Test, table: Table, level: int, positive: bool) -> str:
        column, value = table.columns[test.column], test.value
        operand = _cell(test.column, level)
        if isinstance(value, Select):
            left = _DIALECT.operand(column, operand, ordered=False)
            if level:
                return f"{left} IN ({self._members(column, value, level + 1)})"
            return f"{left} = ANY(ARRAY(SELECT {self._set(column, value)}))"
        if isinstance(value, Ref):
            value = self._list(value) if test.op == "in" else self._scalar(value)
        elif isinstance(value, tuple):
            value = tuple(self._scalar(v) if isinstance(v, Ref) else v for v in value)
        try:
            sql, params = _DIALECT.compare(column, test.op, value, _COLUMN, positive=positive)
        except ValueError as error:
            raise Inexpressible(str(error)) from None
        return _inline(sql, params, operand)

    def _set(self, outer: Column, select: Select) -> str:
        """A call of the function that returns the select's values."""
        body = self._members(outer, select, 1)
        type_ = type_name(outer.kind)
        name = f"set_{digest(f'{type_} {body}')[:12]}"
        function = Function(name, "", f"SETOF {type_}", body, definer=True)
        self.functions[name] = function
        return function.signature

    def _members(self, outer: Column, select: Select, level: int) -> str:
        """The query of a select's values."""
        table = self._table_of(select.model)
        inner = table.columns[select.column]
        cell = _cell(select.column, level)
        member = _inline(*_DIALECT.member(outer, inner, select.prefix, _COLUMN), cell)
        # A NULL in the set would make every "not in it" unknown.
        present = _inline(*_DIALECT.compare(inner, "isnull", False, _COLUMN), cell)
        return (
            f"SELECT ({member})::{type_name(outer.kind)} FROM {table.name} AS t{level} "
            f"WHERE ({present}) AND {self._node(select.where, table, level)}"
        )

    def _scalar(self, ref: Ref) -> Raw:
        """The reference as a value of its kind; NULL where the subject has none."""
        if ref.source == "user" and ref.path[0] not in ("id", "pk"):
            return self._user_value(ref)
        return self._fitted(ref.kind, self._json(ref))

    def _list(self, ref: Ref) -> Raw:
        """The reference as an array; NULL where it is no list."""
        if ref.source == "user":
            column = self._user_column(ref)
            if column is None or column.kind is not Kind.JSON:
                return Raw("NULL")
            json = self._user_json(column)
        elif ref.source == "claims":
            json = self._json(ref)
        else:
            return Raw("NULL")
        fit = self._fit(ref.kind)
        return Raw(
            f"(SELECT CASE json_typeof(v.j) WHEN 'array' THEN ARRAY(SELECT {fit}(e.value)"
            f" FROM json_array_elements(v.j) AS e) END FROM (SELECT {json}) AS v(j))"
        )

    def _json(self, ref: Ref) -> str:
        if ref.source == "role":
            return f"to_json({SCHEMA}.role())"
        if ref.source == "user":
            return f"{SCHEMA}.uid()"
        steps = "".join(f" -> {literal(step)}" for step in ref.path)
        return f"({SCHEMA}.claims(){steps})"

    def _fit(self, kind: Kind) -> str:
        self.functions.update({function.name: function for function in FITS[kind]})
        return f"{SCHEMA}.{FITS[kind][-1].name}"

    def _fitted(self, kind: Kind, json: str) -> Raw:
        return Raw(f"(SELECT {self._fit(kind)}({json}))")

    def _user_column(self, ref: Ref) -> Column | None:
        """The user's column of the reference; None for the primary key, as in `$user.id`."""
        if ref.path[0] in ("id", "pk"):
            return None
        for column in self._user_table.columns.values():
            if ref.path[0] in (column.field.name, column.attname):
                return column
        raise Inexpressible(f"$user.{ref.path[0]} is no column of the user table")

    def _user_json(self, column: Column) -> str:
        if getattr(column.field, "decoder", None) is not None:
            raise Inexpressible(f"$user.{column.name} is decoded by Python code")
        return self._of_user(column, f"to_json(u.{identifier(column.name)})", "json")

    def _of_user(self, column: Column, expression: str, returns: str) -> str:
        # The name has a digest, because a function cannot change its type in place.
        name = shortened(f"user_{column.name}_{digest(expression + returns)[:8]}")
        self.functions[name] = of_user(self._users, name, expression, returns)
        return self.functions[name].signature

    def _user_value(self, ref: Ref) -> Raw:
        """The user's field as a value of the column's kind, as `kinds.from_python` makes it."""
        column = self._user_column(ref)
        assert column is not None
        cell, kind = f"u.{identifier(column.name)}", column.kind
        if kind is Kind.INET and ref.kind is Kind.TEXT:
            raise Inexpressible(f"$user.{column.name} is an IP address, compared as text")
        if kind is Kind.FLOAT and ref.kind is Kind.TEXT:
            return Raw("NULL")
        if kind is ref.kind and (kind in _DIRECT or kind in (Kind.FLOAT, Kind.DECIMAL)):
            value = _inline(_DIALECT.operand(column, _COLUMN, ordered=False), [], cell)
        elif kind in _THROUGH_JSON:
            return self._fitted(ref.kind, self._user_json(column))
        elif kind is Kind.DECIMAL and ref.kind is Kind.INT:
            fits = f"{cell} = trunc({cell}) AND {cell} BETWEEN {INT_MIN} AND {INT_MAX}"
            value = f"CASE WHEN {fits} THEN {cell}::int8 END"
        elif kind is Kind.DECIMAL and ref.kind is Kind.FLOAT:
            self._fit(Kind.FLOAT)
            value = f"{SCHEMA}.to_double({cell}::text)"
        else:
            return Raw("NULL")
        return Raw(f"(SELECT {self._of_user(column, value, type_name(ref.kind))})")


BYPASSES = f"(SELECT {SCHEMA}.bypasses())"


def bypass(table: Table, name: str) -> str:
    """The policy that lets all rows through for subjects that bypass row-level security."""
    return (
        f"CREATE POLICY {identifier(name)} ON {table.name}\n"
        f"AS PERMISSIVE FOR ALL TO PUBLIC\nUSING ({BYPASSES})"
    )


def _concerned(rule: PolicyRule, permission: tuple[str, str]) -> str:
    """SQL for whether the rule concerns the subject: true or false, never unknown."""
    if rule.audience == "anyone":
        return f"(SELECT {SCHEMA}.role() IS NOT NULL)"
    if rule.audience == "authenticated":
        return f"(SELECT coalesce({SCHEMA}.role() <> 'anon', false))"
    return f"(SELECT {SCHEMA}.holds({', '.join(map(literal, permission))}))"


def _cell(column: str, level: int) -> str:
    return f"t{level}.{identifier(column)}" if level else identifier(column)


def _inline(sql: str, params: list[Any], operand: str) -> str:
    """The text with its column and its parameters in place."""
    head, *rest = (piece.replace(_COLUMN, operand) for piece in sql.split("%s"))
    return head + "".join(_shown(param) + piece for param, piece in zip(params, rest, strict=True))


def _shown(param: Any) -> str:
    if isinstance(param, Raw):
        return param.sql
    if isinstance(param, list):
        return f"ARRAY[{', '.join(map(literal, param))}]"
    return literal(param)
