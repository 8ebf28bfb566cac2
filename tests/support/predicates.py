"""Random predicates and the rows of Specimen that they are tried on."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import OPERATORS, Form, Operator
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    UNKNOWN,
    All,
    Any_,
    Not,
    Predicate,
    Select,
    Test,
)
from auth_rls.sql.columns import columns_of
from tests.zoo.models import Member, Note, Specimen

PIECES = ["", "a", "A", "b", "aB", "é", "É", "ß", "İ", "ı", "\u212a", "日", "😀", "\uffff", "%"]


PIECES += ["_", "\\", "'", '"', "*", "?", "[", "]", "^", " ", "\n", "\t", "--", "{", "$", "null"]


texts = st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6
)


patterns = st.lists(st.sampled_from([*PIECES, "%", "_", "\\%", "\\_"]), max_size=5).map("".join)


moments = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [
        datetime(2025, 11, 3, 9, 32, 55, tzinfo=UTC),
        datetime(2025, 11, 3, 9, 32, 55, 1, tzinfo=UTC),
        datetime(2025, 11, 3, 9, 32, 55, 100000, tzinfo=UTC),
        datetime(2025, 11, 3, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ]
)


uuids = st.uuids() | st.sampled_from([UUID(int=0), UUID(int=2**128 - 1), UUID(int=0xAB << 120)])


grid = st.integers(-(10**15) + 1, 10**15 - 1).map(lambda n: Decimal(n).scaleb(-4))


spans = st.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(days=1, hours=2)])


spans |= st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))


reals = st.floats(allow_nan=False, allow_infinity=False, width=64) | st.sampled_from(
    [0.0, -0.0, 0.1, 1e300, -1e-300, 2.0**53, 2.0**53 + 2]
)


addresses = st.sampled_from(["10.0.0.1", "192.0.2.255", "::1", "2001:db8::a", "::ffff:1.2.3.4"])


def _integers(bits: int, low: int | None = None) -> st.SearchStrategy[int]:
    top = 2 ** (bits - 1) - 1
    bottom = -top - 1 if low is None else low
    return st.sampled_from([0, 1, 2, 7, top, max(bottom, -1), bottom]) | st.integers(bottom, top)


# What a row may hold, by field of Specimen.
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "small": _integers(16),
    "integer": _integers(32),
    "big": _integers(64),
    "positive": _integers(32, 0),
    "positive_big": _integers(64, 0),
    "real": reals,
    "decimal": grid | st.sampled_from([Decimal(0), Decimal("-0.0001"), Decimal("1.005")]),
    "char": texts,
    "text": texts,
    "slug": texts,
    "date": st.dates() | st.just(date(2025, 11, 3)),
    "time": st.times() | st.just(time(9, 32)),
    "moment": moments,
    "duration": spans,
    "uuid": uuids,
    "inet": addresses,
    "json": st.none() | st.just({"a": 1}),
    "binary": st.binary(max_size=4),
    "renamed": _integers(32),
    "owner_id": st.sampled_from([1, 2]),
}


# What a predicate may compare with, by kind: wider than what columns hold.
LITERALS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT: _integers(64) | st.sampled_from([1, 2, 3]),
    Kind.FLOAT: reals,
    Kind.DECIMAL: grid
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            Decimal(t)
            for t in (
                "1.01",
                "1.01000001",
                "1.00999999",
                "1.005",
                "-0",
                "1e-9",
                "-1e-9",
                "1e40",
                "-1e40",
            )
        ]
    ),
    Kind.TEXT: texts,
    Kind.DATE: CELLS["date"],
    Kind.TIME: CELLS["time"],
    Kind.DATETIME: moments,
    Kind.INTERVAL: spans | st.just(timedelta.max) | st.just(timedelta.min),
    Kind.UUID: uuids.map(str),
    Kind.INET: addresses,
}


# (column of Specimen, model, column of it, prefix, kind of the first)
SOURCES = [
    ("owner_id", "zoo.Member", "user_id", "", Kind.INT),
    ("other_name", "zoo.Note", "score", "", Kind.INT),
    ("big", "zoo.Note", "score", "", Kind.INT),
    ("uuid", "zoo.Note", "ref", "", Kind.UUID),
    ("decimal", "zoo.Note", "price", "", Kind.DECIMAL),
    ("moment", "zoo.Note", "created", "", Kind.DATETIME),
    ("boolean", "zoo.Note", "is_public", "", Kind.BOOL),
    ("char", "zoo.Note", "title", "", Kind.TEXT),
    ("text", "zoo.Note", "title", "a", Kind.TEXT),
    ("slug", "zoo.Note", "ref", "", Kind.TEXT),
    ("slug", "zoo.Member", "team_id", "a%", Kind.TEXT),
]


MODELS = {"zoo.Member": Member, "zoo.Note": Note, "zoo.Specimen": Specimen}


KINDS = {
    label: {name: column.kind for name, column in columns_of(model).items()}
    for label, model in MODELS.items()
}


COLUMN_OF = {column.attname: name for name, column in columns_of(Specimen).items()}


REGEXES = ["a", "^a", "b$", "[^a]", "é|É", "."]


@st.composite
def comparisons(draw: st.DrawFn, label: str, deep: bool) -> Predicate:
    if deep and draw(st.integers(0, 4)) == 0:
        column, source, inner, prefix, kind = draw(st.sampled_from(SOURCES))
        where = draw(predicates(source, 2, deep=False))
        return Test(column, "in", Select(source, inner, where, prefix, kind))
    names = [COLUMN_OF[name] for name in CELLS] if deep else sorted(KINDS[label])
    column = draw(st.sampled_from(names))
    kind = KINDS[label][column]
    # What has no SQL cannot be in a select.
    fitting = [
        operator
        for operator in OPERATORS.values()
        if kind in operator.kinds and (deep or operator.sql is not None)
    ]
    operator = draw(st.sampled_from(fitting))
    return Test(column, operator.name, draw(_values(operator, LITERALS.get(kind, st.nothing()))))


def _values(operator: Operator, literals: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if operator.form is Form.FLAG:
        return st.booleans()
    if operator.form is Form.TRUTH:
        return st.sampled_from([True, False, None])
    if operator.form is Form.SET:
        return st.frozensets(literals, max_size=4)
    if operator.form is Form.PAIR:
        return st.tuples(literals, literals)
    if operator.form is Form.PATTERN:
        return patterns if operator.sql is not None else st.sampled_from(REGEXES)
    return literals


def predicates(label: str, depth: int, deep: bool = True) -> st.SearchStrategy[Predicate]:
    leaves = comparisons(label, deep) | st.sampled_from([TRUE, FALSE, UNKNOWN])
    result: st.SearchStrategy[Predicate] = comparisons(label, deep)
    for _ in range(depth - 1):
        parts = st.lists(result | leaves, max_size=3).map(tuple)
        result = st.one_of(result, parts.map(All), parts.map(Any_), result.map(Not))
    return result
