"""Parsing: policy JSON to a predicate, every name and value checked against the table.

A parsed predicate, once bound, is evaluated and compiled without further checks. Mistakes are
refused here, while the author of the policy is present, with a message that names the column or the
operator and says what would be right.

Pure: no Django, no I/O. A table is described by its `TableSchema`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from auth_rls.predicates.fit import ignoring_case
from auth_rls.predicates.kinds import OPAQUE, Kind, from_literal
from auth_rls.predicates.operators import OPERATORS, Form, Operator, policy_operators
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    All,
    Any_,
    Not,
    Predicate,
    Ref,
    RefTest,
    Select,
    Test,
)

MAX_DEPTH = 32
"""Levels of nesting, those of a select's `where` included."""
MAX_SELECTS = 4
"""Selects within each other. SQLite's parser before 3.46 takes about eight."""
MAX_TESTS = 1_000
"""Comparisons and connectives in one predicate."""
MAX_VALUES = 10_000
"""Values in all the lists of one predicate."""
MAX_TEXT = 65_536
"""Characters in one text."""

_TO_TEXT = frozenset({Kind.TEXT, Kind.INT, Kind.UUID})
_CONNECTIVES = ("all", "any", "not")


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The names that a predicate on a table may use: the table's label "app.Model", and for each
    name of a column, the column's own name and kind. `refused`: by name, why a column may not be
    compared; `ignoring_case`: the columns to which the case of letters counts for nothing;
    `relations`: by name of a foreign key, the label of the other table and the column of it that
    the key holds, for messages."""

    label: str
    columns: Mapping[str, tuple[str, Kind]]
    refused: Mapping[str, str] = field(default_factory=dict)
    ignoring_case: frozenset[str] = frozenset()
    relations: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class PredicateError(ValueError):
    """A predicate is refused. `message` says what is wrong, `path` where in the JSON."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message = message
        self.path = path


def parse(
    json: Any,
    table: TableSchema,
    resolve: Callable[[str], TableSchema],
    user_kind: Callable[[str], Kind] | None = None,
) -> Predicate:
    """The predicate on rows of `table` that this JSON value (already decoded) stands for.

    `resolve` returns the schema of an "app.Model" in a select. It raises LookupError or
    PredicateError if that does not exist or may not be read; the text becomes part of the error.

    `user_kind` returns the kind of a field of the user for `{"$user.<field>": …}`; it raises
    PredicateError for a field that does not exist. Raises PredicateError.
    """
    return _Parser(resolve, user_kind).predicate(json, table, "", 1)


class _Parser:
    """One parse. Counts conditions, values and selects over the whole predicate."""

    def __init__(
        self,
        resolve: Callable[[str], TableSchema],
        user_kind: Callable[[str], Kind] | None,
    ) -> None:
        self._resolve = resolve
        self._user_kind = user_kind
        self._tests = 0
        self._values = 0
        self._selects = 0

    def predicate(self, json: Any, table: TableSchema, path: str, depth: int) -> Predicate:
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise PredicateError(f"more than {MAX_TESTS} conditions", path)
        if depth > MAX_DEPTH:
            raise PredicateError(f"nested deeper than {MAX_DEPTH} levels", path)
        if json is True:
            return TRUE
        if json is False:
            return FALSE
        if not isinstance(json, Mapping):
            raise PredicateError(
                f"expected true, false or an object of conditions, not {_shown(json)}", path
            )
        if not json:
            raise PredicateError("empty object; write true to allow every row", path)
        for word in _CONNECTIVES:
            if word in json:
                if len(json) > 1:
                    raise PredicateError(
                        f'"{word}" must be the only key of its object; put the other conditions '
                        f'beside it in an "all"',
                        path,
                    )
                return self._connective(word, json[word], table, _join(path, word), depth)
        parts = [self._test(key, json[key], table, _join(path, key), depth) for key in json]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _connective(
        self, word: str, json: Any, table: TableSchema, path: str, depth: int
    ) -> Predicate:
        if word == "not":
            return Not(self.predicate(json, table, path, depth + 1))
        if not isinstance(json, list | tuple):
            raise PredicateError(f'"{word}" takes a list of predicates, not {_shown(json)}', path)
        parts = tuple(
            self.predicate(part, table, f"{path}[{index}]", depth + 1)
            for index, part in enumerate(json)
        )
        return All(parts) if word == "all" else Any_(parts)

    def _test(self, key: Any, json: Any, table: TableSchema, path: str, depth: int) -> Predicate:
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise PredicateError(f"more than {MAX_TESTS} conditions", path)
        if isinstance(key, str) and key.startswith("$"):
            return self._ref_test(key, json, path, depth)
        column, kind, op = _lookup(key, table, path)
        test = Test(column, op, self._compared(column, op, json, kind, path, depth))
        if column not in table.ignoring_case:
            return test
        try:
            return ignoring_case(test)
        except ValueError as error:
            raise PredicateError(f"operator {op!r} does not suit {column}: {error}", path) from None

    def _ref_test(self, key: str, json: Any, path: str, depth: int) -> RefTest:
        name, op = key, "exact"
        head, _, tail = key.rpartition("__")
        if head and _in_policies(tail) is not None:
            name, op = head, tail
        ref = _reference(name, Kind.TEXT, path)
        if isinstance(json, Mapping):
            raise PredicateError(
                f"a select is compared with a column; {name} takes plain values and references",
                path,
            )
        kind = self._ref_kind(ref, op, json, path)
        _check_operator(name, kind, op, path)
        ref = Ref(ref.source, ref.path, kind)
        return RefTest(ref, op, self._compared(name, op, json, kind, path, depth))

    def _ref_kind(self, ref: Ref, op: str, json: Any, path: str) -> Kind:
        """The kind of a reference: a field of the user has its own, a claim has the kind of the
        other side."""
        if ref.source == "user" and self._user_kind is not None:
            try:
                return self._user_kind(ref.path[0])
            except PredicateError as error:
                raise PredicateError(error.message, path) from None
        if ref.source == "role" or op == "isnull":
            return Kind.TEXT
        items = json if isinstance(json, list | tuple) else [json]
        kinds = {self._kind_of(item, path) for item in items} or {Kind.TEXT}
        if len(kinds) > 1:
            raise PredicateError("the values must be of one type", path)
        return kinds.pop()

    def _kind_of(self, json: Any, path: str) -> Kind:
        if isinstance(json, bool):
            return Kind.BOOL
        if isinstance(json, int | float):
            return Kind.DECIMAL
        if isinstance(json, str) and json.startswith("$user.") and self._user_kind is not None:
            return self._ref_kind(_reference(json, Kind.TEXT, path), "exact", json, path)
        return Kind.TEXT

    def _compared(self, name: str, op: str, json: Any, kind: Kind, path: str, depth: int) -> object:
        """The other side of a comparison, as a value of a Test."""
        form = OPERATORS[op].form
        if form is Form.FLAG:
            if not isinstance(json, bool):
                raise PredicateError(f"{op} takes true or false, not {_shown(json)}", path)
            return json
        if form is Form.SET:
            return self._set(json, kind, path, depth)
        if form is Form.PAIR:
            if not isinstance(json, list | tuple) or len(json) != 2:
                raise PredicateError(f"{op} takes a list of two values, not {_shown(json)}", path)
            return _value(json[0], kind, path), _value(json[1], kind, path)
        if isinstance(json, Mapping) and "select" in json:
            raise PredicateError(f'"select" goes with in only: {name}__in', path)
        return _value(json, kind, path)

    def _set(self, json: Any, kind: Kind, path: str, depth: int) -> object:
        if isinstance(json, Mapping):
            return self._select(json, kind, path, depth)
        if isinstance(json, str) and json.startswith("$") and not json.startswith("$$"):
            return _value(json, kind, path)
        if not isinstance(json, list | tuple):
            raise PredicateError(
                f'in takes a list, a reference to one such as "$claims.teams", or a '
                f"select, not {_shown(json)}",
                path,
            )
        self._values += len(json)
        if self._values > MAX_VALUES:
            raise PredicateError(f"more than {MAX_VALUES} values in lists", path)
        items = [_value(item, kind, f"{path}[{index}]") for index, item in enumerate(json)]
        if any(isinstance(item, Ref) for item in items):
            return tuple(items)
        return frozenset(items)

    def _select(self, json: Mapping[Any, Any], kind: Kind, path: str, depth: int) -> Select:
        extra = [key for key in json if key not in ("select", "from", "where", "prefix")]
        if extra:
            raise PredicateError(
                f"unknown key {_shown(extra[0])}; a select has select, from, where and prefix", path
            )
        for key in ("select", "from"):
            if not isinstance(json.get(key), str):
                raise PredicateError(
                    'a select is {"select": column, "from": "app.Model", "where": predicate}', path
                )
        try:
            source = self._resolve(json["from"])
        except (LookupError, PredicateError) as error:
            reason = str(error.args[0]) if error.args else f"there is no model {json['from']}"
            raise PredicateError(reason, _join(path, "from")) from None
        if json["select"] in source.refused:
            raise PredicateError(source.refused[json["select"]], _join(path, "select"))
        found = source.columns.get(json["select"])
        if found is None:
            raise PredicateError(_unknown(json["select"], source), _join(path, "select"))
        column, inner = found
        if column in source.ignoring_case:
            raise PredicateError(
                f"{column} of {source.label} ignores case, so its values cannot be selected",
                _join(path, "select"),
            )
        prefix = json.get("prefix", "")
        if not isinstance(prefix, str):
            raise PredicateError(f"expected text, not {_shown(prefix)}", _join(path, "prefix"))
        _value("$" + prefix if prefix.startswith("$") else prefix, Kind.TEXT, path)
        if prefix and kind is not Kind.TEXT:
            raise PredicateError(
                f"a prefix needs a text column to compare with, not one of {kind}", path
            )
        if inner in OPAQUE or not (inner is kind or (kind is Kind.TEXT and inner in _TO_TEXT)):
            raise PredicateError(
                f"{column} of {source.label} is {inner}, which cannot be compared with {kind}", path
            )
        self._selects += 1
        if self._selects > MAX_SELECTS:
            raise PredicateError(f"more than {MAX_SELECTS} selects within each other", path)
        where = self.predicate(json.get("where", True), source, _join(path, "where"), depth + 1)
        self._selects -= 1
        return Select(source.label, column, where, prefix, kind)


def _lookup(key: Any, table: TableSchema, path: str) -> tuple[str, Kind, str]:
    if not isinstance(key, str):
        raise PredicateError(f"expected a column name, not {_shown(key)}", path)
    # A name with two underscores is first looked up as a column.
    name, op = key, "exact"
    if name not in table.columns and name not in table.refused and "__" in key:
        name, _, op = key.rpartition("__")
    _refuse_join(key, table, path)
    if name in table.refused:
        raise PredicateError(table.refused[name], path)
    if name not in table.columns:
        raise PredicateError(_unknown(name, table), path)
    column, kind = table.columns[name]
    _check_operator(name, kind, op, path)
    return column, kind, op


def _refuse_join(key: str, table: TableSchema, path: str) -> None:
    """Django's `team__name` reads another table. The message has the select that does the same."""
    name, _, rest = key.partition("__")
    first = rest.partition("__")[0]
    if (
        name not in table.relations
        or not rest
        or _in_policies(first) is not None
        or key in table.columns
    ):
        return
    label, target = table.relations[name]
    raise PredicateError(
        f"no joins here: {key!r} asks for a column of {label}; use a select: "
        f'{{"{name}__in": {{"select": "{target}", "from": "{label}", "where": {{"{rest}": …}}}}}}',
        path,
    )


def _in_policies(op: str) -> Operator | None:
    operator = OPERATORS.get(op)
    return operator if operator is not None and operator.in_policies else None


def _check_operator(name: str, kind: Kind, op: str, path: str) -> None:
    operator = _in_policies(op)
    if operator is None:
        raise PredicateError(
            f"unknown operator {op!r} on {name}; "
            f"{kind} columns take {_listed(policy_operators(kind))}",
            path,
        )
    if kind not in operator.kinds:
        raise PredicateError(
            f"operator {op!r} does not suit {name}, which is {kind}; "
            f"it takes {_listed(policy_operators(kind))}",
            path,
        )


def _value(json: Any, kind: Kind, path: str) -> object:
    if isinstance(json, str):
        if len(json) > MAX_TEXT:
            raise PredicateError(f"text of more than {MAX_TEXT} characters", path)
        if json.startswith("$$"):
            json = json[1:]
        elif json.startswith("$"):
            return _reference(json, kind, path)
    try:
        return from_literal(kind, json)
    except ValueError as error:
        raise PredicateError(str(error), path) from None


def _reference(text: str, kind: Kind, path: str) -> Ref:
    source, *steps = text[1:].split(".")
    if source == "role" and not steps:
        return Ref("role", (), kind)
    if source == "user" and len(steps) == 1 and steps[0]:
        return Ref("user", (steps[0],), kind)
    if source == "claims" and steps and all(steps):
        return Ref("claims", tuple(steps), kind)
    raise PredicateError(
        f"unknown reference {text!r}; there are $user.id, $user.<field>, $claims.<path> and $role. "
        f"For the text itself write {'$' + text!r}",
        path,
    )


def _unknown(name: str, table: TableSchema) -> str:
    near = get_close_matches(name, table.columns, n=1)
    columns = sorted({column for column, _ in table.columns.values()})
    hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(columns)}"
    return f"unknown column {name!r} of {table.label}; {hint}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(json: Any) -> str:
    text = repr(json)
    return text if len(text) <= 60 else f"{text[:57]}..."
