"""Filters: the text `column=op.value,...` of a binding, and the predicate that it means.

Reading has two steps: `read` splits the text into conditions without knowing any table, and
`parse_filter` gives them the types of a table's columns and compiles their regular expressions,
within bounds. Every error is a `FilterError`, with the official server's text where it has one.

Pure: no Django, no I/O, no evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import NoReturn

from auth_rls.predicates import patterns
from auth_rls.predicates.fit import EXACT, Fit, ignoring_case
from auth_rls.predicates.kinds import Kind, from_text
from auth_rls.predicates.operators import FILTER_WORDS, Form, Operator, operator_of
from auth_rls.predicates.predicate import TRUE, All, Any_, Not, Predicate, Test, tests
from realtime.protocol.errors import inspect

MAX_LENGTH = 16_384
"""Characters of one filter."""

MAX_ITEMS = 100
"""Values in one `in` list."""

MAX_CONDITIONS = 100
"""Conditions in one filter; each may be evaluated for every event of the table."""

MAX_PATTERN = 1_000
"""Characters of one `like` or `match` pattern."""

MAX_PATTERNS = 20
"""Patterns in one filter."""

MAX_PROGRAMS = 3_000
"""Instructions of all regular expressions of one filter together."""

# An unknown name is compared with so many columns, if it is no longer than a name can be: the event
# loop may wait for it.
_COMPARED_COLUMNS = 100
_LONGEST_COMPARED = 63

_WHITE = " \t\n\r\f\v"
# Separators are searched for instead of walking over characters: a join may hold a megabyte.
_MARK = re.compile(r'[",()]')
# Between parentheses commas separate nothing here.
_INNER_MARK = re.compile(r'["()]')
_ITEM_MARK = re.compile(r'[",]')
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class FilterError(ValueError):
    """The filter does not fit its table; `exception` is the text of the official server's
    Exception."""

    def __init__(
        self, message: str, state: str = "P0001 (raise_exception)", hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.message = message
        self.exception = f"ERROR {state} {message}"


class FilterSyntaxError(FilterError):
    """The filter cannot be read, for any table."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One `column=op.value`: `value` as sent, still quoted; `negated` by a leading `not.`."""

    column: str
    op: str
    value: str
    negated: bool


def parse_filter(
    text: str,
    columns: Mapping[str, Kind],
    fits: Mapping[str, Fit] | None = None,
    *,
    compiled: bool = True,
) -> Predicate:
    """The predicate of a filter on a table with these columns; TRUE for blank text. `fits`
    names the columns whose type in the database is not the usual one of their kind.

    Raises FilterError, and nothing else: FilterSyntaxError when the text cannot be read, else
    for an unknown column, an operator that the column's kind does not have, a value that it cannot
    hold, and patterns that are malformed, too many or too large. With `compiled` False regular
    expressions are not compiled, so that a malformed one is not noticed.
    """
    conditions = read(text)
    if sum(_operator(condition).pattern is not None for condition in conditions) > MAX_PATTERNS:
        raise FilterError(f"too many patterns. Maximum {MAX_PATTERNS}")
    parts = tuple(_predicate(condition, columns, fits or {}) for condition in conditions)
    if compiled:
        _check_programs(parts)
    if not parts:
        return TRUE
    return parts[0] if len(parts) == 1 else All(parts)


def read(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter, in order; none for blank text. Raises FilterSyntaxError."""
    if not text.strip(_WHITE):
        return ()
    if len(text) > MAX_LENGTH:
        raise FilterSyntaxError(f"filter is longer than {MAX_LENGTH} characters")
    conditions: list[Condition] = []
    for segment in _split(text):
        if len(conditions) == MAX_CONDITIONS:
            raise FilterSyntaxError(f"too many conditions. Maximum {MAX_CONDITIONS}")
        conditions.append(_condition(segment.strip(_WHITE)))
    return tuple(conditions)


def fitted(predicate: Predicate, fits: Mapping[str, Fit]) -> Predicate:
    """A bound predicate as columns of these types compare. Raises FilterError for a column that may
    not be compared, or not so."""
    if isinstance(predicate, All | Any_):
        return type(predicate)(tuple(fitted(part, fits) for part in predicate.parts))
    if isinstance(predicate, Not):
        return Not(fitted(predicate.part, fits))
    if not isinstance(predicate, Test):
        return predicate
    fit = fits.get(predicate.column, EXACT)
    if fit.problem:
        raise _not_comparable(predicate.column, fit)
    if not fit.ignores_case:
        return predicate
    try:
        return ignoring_case(predicate)
    except ValueError as error:
        raise _not_ignoring_case(predicate.column, predicate.op, error) from None


# --- reading ------------------------------------------------------------------------------------


def _split(text: str) -> Iterator[str]:
    """Cuts at commas outside quotes and parentheses. A quote opens only where a value begins."""
    depth = start = position = 0
    while (mark := (_INNER_MARK if depth else _MARK).search(text, position)) is not None:
        at, char, position = mark.start(), mark[0], mark.end()
        if char == '"':
            last = _last_visible(text, start, at)
            if (at > start and text[at - 1] == ".") or (last >= start and text[last] in "(,"):
                quoted = _QUOTED.match(text, at)
                if quoted is None:
                    break
                position = quoted.end()
        elif char != ",":
            depth = max(0, depth + (char == "(") - (char == ")"))
        elif depth == 0:
            yield text[start:at]
            start = position
    yield text[start:]


def _last_visible(text: str, start: int, end: int) -> int:
    """The index of the last character before `end` that is not white; `start - 1` for none."""
    index = end - 1
    while index >= start and text[index] in _WHITE:
        index -= 1
    return index


def _condition(segment: str) -> Condition:
    if not segment:
        raise FilterSyntaxError("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = segment.partition("=")
    if not equals:
        raise FilterSyntaxError(inspect([segment]))
    negated = rest.startswith("not.")
    op, dot, value = rest.removeprefix("not.").partition(".")
    if not dot:
        raise FilterSyntaxError(inspect([op]))
    if op not in FILTER_WORDS:
        raise FilterSyntaxError(inspect([op, value]))
    condition = Condition(column, op, value, negated)
    if _operator(condition).form is Form.SET and not (
        len(value) >= 2 and value[0] == "(" and value[-1] == ")"
    ):
        raise FilterSyntaxError(f"`{op}` filter value must be wrapped by parentheses")
    return condition


def _operator(condition: Condition) -> Operator:
    return FILTER_WORDS[condition.op][0]


def _unquote(text: str) -> str:
    """The unescaped text inside quotes that span all of it; any other text unchanged."""
    if len(text) < 2 or text[0] != '"':
        return text
    inner, escaped = [], False
    for char in text[1:-1]:
        if escaped or char not in '"\\':
            inner.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            return text
    return text if escaped or text[-1] != '"' else "".join(inner)


def _items(value: str) -> list[str]:
    """The items of an `in` list, of one that is too long the first. White space around an item is
    not part of it unless quoted."""
    inner = value[1:-1].strip(_WHITE)
    if not inner:
        return []
    items: list[str] = []
    start = position = 0
    while (mark := _ITEM_MARK.search(inner, position)) is not None:
        at, position = mark.start(), mark.end()
        if mark[0] == ",":
            items.append(inner[start:at].strip(_WHITE))
            if len(items) > MAX_ITEMS:
                return items
            start = position
        elif _last_visible(inner, start, at) < start:
            quoted = _QUOTED.match(inner, at)
            if quoted is None:
                break
            position = quoted.end()
    items.append(inner[start:].strip(_WHITE))
    return [_unquote(item) for item in items]


# --- typing -------------------------------------------------------------------------------------


def _predicate(
    condition: Condition, columns: Mapping[str, Kind], fits: Mapping[str, Fit]
) -> Predicate:
    kind = columns.get(condition.column)
    if kind is None:
        hint = unknown_column(condition.column, columns)
        raise FilterError(f"invalid column for filter {condition.column}", hint=hint)
    fit = fits.get(condition.column, EXACT)
    if fit.problem:
        raise _not_comparable(condition.column, fit)
    operator, denied = FILTER_WORDS[condition.op]
    found = _READERS[operator.form](condition, kind, operator)
    if denied:
        found = Not(found)
    if fit.ignores_case:
        found = _ignoring_case(condition, found)
    return Not(found) if condition.negated else found


def _ignoring_case(condition: Condition, found: Predicate) -> Predicate:
    if isinstance(found, Not):
        return Not(_ignoring_case(condition, found.part))
    assert isinstance(found, Test)  # as every reader gives it
    try:
        return ignoring_case(found)
    except ValueError as error:
        raise _not_ignoring_case(condition.column, condition.op, error) from None


def _not_comparable(column: str, fit: Fit) -> FilterError:
    return FilterError(
        f"invalid column for filter {column}: {fit.problem}", "0A000 (feature_not_supported)"
    )


def _not_ignoring_case(column: str, op: str, error: ValueError) -> FilterError:
    return FilterError(
        f"invalid operator for filter {column}: {op}: {error}", "42883 (undefined_function)"
    )


def unknown_column(name: str, columns: Iterable[str]) -> str:
    """The hint for a column that does not exist. Hidden columns are not among `columns`."""
    few = list(islice(columns, _COMPARED_COLUMNS)) if len(name) <= _LONGEST_COMPARED else []
    close = get_close_matches(name, few, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"No published column has this name.{meant}"


def _value(condition: Condition, kind: Kind, text: str) -> object:
    try:
        return from_text(kind, text)
    except ValueError as error:
        raise FilterError(
            f"invalid value for filter {condition.column}: {error}",
            "22P02 (invalid_text_representation)",
        ) from None


def _unsuited(condition: Condition, kind: Kind) -> NoReturn:
    raise FilterError(
        f"invalid operator for filter {condition.column}: {condition.op} does not apply to {kind}",
        "42883 (undefined_function)",
    )


def _value_test(condition: Condition, kind: Kind, operator: Operator) -> Predicate:
    if kind not in operator.kinds:
        _unsuited(condition, kind)
    value = _value(condition, kind, _unquote(condition.value))
    return Test(condition.column, operator.name, value)


def _value_or_null_test(condition: Condition, kind: Kind, operator: Operator) -> Predicate:
    # In a text column "null" is a text like any other.
    if kind is not Kind.TEXT and condition.value.strip(_WHITE).lower() == "null":
        return Not(Test(condition.column, "isnull", True))
    return _value_test(condition, kind, operator)


def _set_test(condition: Condition, kind: Kind, operator: Operator) -> Predicate:
    if kind not in operator.kinds:
        _unsuited(condition, kind)
    items = _items(condition.value)
    if len(items) > MAX_ITEMS:
        raise FilterError(f"too many values for `{condition.op}` filter. Maximum {MAX_ITEMS}")
    values = frozenset(_value(condition, kind, item) for item in items)
    return Test(condition.column, operator.name, values)


def _truth_test(condition: Condition, kind: Kind, operator: Operator) -> Predicate:
    word = _unquote(condition.value).strip(_WHITE).lower()
    if word == "null":
        return Test(condition.column, "isnull", True)
    if word not in ("true", "false", "unknown"):
        raise FilterError(
            f"invalid value for filter {condition.column}: is takes null, true, false or unknown",
            "22P02 (invalid_text_representation)",
        )
    if kind not in operator.kinds:
        raise FilterError(
            f"invalid operator for filter {condition.column}: is.{word} needs a boolean column",
            "42804 (datatype_mismatch)",
        )
    if word == "unknown":
        return Test(condition.column, "isnull", True)
    return Test(condition.column, operator.name, word == "true")


def _pattern_test(condition: Condition, kind: Kind, operator: Operator) -> Predicate:
    assert operator.pattern is not None  # as its form says
    test = _value_test(condition, kind, operator)
    pattern = _unquote(condition.value)
    if len(pattern) > MAX_PATTERN:
        raise _bad_pattern(condition.column, f"it is longer than {MAX_PATTERN} characters")
    if problem := operator.pattern.problem(pattern):
        raise _bad_pattern(condition.column, problem)
    return test


def _bad_pattern(column: str, problem: str) -> FilterError:
    return FilterError(
        f"invalid pattern for filter {column}: {problem}", "2201B (invalid_regular_expression)"
    )


def _check_programs(parts: tuple[Predicate, ...]) -> None:
    """Compile the regular expressions of a filter, up to the first that is wrong."""
    size = 0
    for test in tests(All(parts)):
        language = operator_of(test.op).pattern
        if language is None or not language.program:
            continue
        try:
            size += language.make(test.value).program
        except patterns.RegexUnavailable as error:
            raise FilterError(
                f"invalid operator for filter {test.column}: {error}",
                "0A000 (feature_not_supported)",
            ) from None
        except ValueError as error:
            raise _bad_pattern(test.column, str(error)) from None
        if size > MAX_PROGRAMS:
            raise _bad_pattern(test.column, "the patterns of this filter are too large together")


# The form of an operator decides how its value is written in a filter.
_READERS: dict[Form, Callable[[Condition, Kind, Operator], Predicate]] = {
    Form.VALUE: _value_test,
    Form.VALUE_OR_NULL: _value_or_null_test,
    Form.SET: _set_test,
    Form.TRUTH: _truth_test,
    Form.PATTERN: _pattern_test,
}
