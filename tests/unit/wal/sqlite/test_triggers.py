"""What the capture triggers write, run on a bare SQLite: values of every kind, and garbage."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.utils.duration import duration_iso_string
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind, from_row
from realtime.wal.sqlite import triggers as sqlite
from tests.support.relations import COLUMNS, relation_of

decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode

KINDS = {name: kind for name, _, kind, _ in COLUMNS}
WAL = (
    "CREATE TABLE realtime_wal (id INTEGER PRIMARY KEY AUTOINCREMENT, op, pk_text, old,"
    " new, relation_id, txid, captured_us, actor)"
)


_opened: list[sqlite3.Connection] = []


@pytest.fixture(autouse=True, scope="module")
def _closing() -> Iterator[None]:
    """Connections are closed by hand: one that is only dropped is a warning, hence an error."""
    yield
    while _opened:
        _opened.pop().close()


class Table:
    """A table with its triggers, and the log they write to."""

    def __init__(
        self,
        columns: tuple[tuple[str, str, Kind, str], ...] = COLUMNS,
        name: str = "t",
        key: tuple[str, ...] = ("id",),
        captured: tuple[str, ...] | None = None,
    ) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        _opened.append(self.db)
        self.name = sqlite.quote_name(name)
        self.db.execute("PRAGMA recursive_triggers=ON")
        self.db.execute(WAL)
        defined = ", ".join(f"{sqlite.quote_name(n)} {sql}" for n, _, _, sql in columns)
        self.db.execute(f"CREATE TABLE {self.name} ({defined})")
        kept = tuple(c for c in columns if captured is None or c[0] in captured)
        statements = sqlite.triggers(
            relation_of(kept, name, *key), scales={"price": 2}, whole=kept == columns
        )
        for statement in statements.values():
            self.db.execute(statement)

    def insert(self, **values: Any) -> dict[str, Any]:
        """Insert a row; its captured image, decoded."""
        names = ", ".join(map(sqlite.quote_name, values))
        marks = ", ".join("?" * len(values))
        self.db.execute(f"INSERT INTO {self.name} ({names}) VALUES ({marks})", [*values.values()])
        return decode(self.last("new"))

    def last(self, column: str) -> Any:
        sql = f"SELECT {column} FROM realtime_wal ORDER BY id DESC LIMIT 1"
        return self.db.execute(sql).fetchone()[0]

    def log(self) -> list[tuple[Any, ...]]:
        return self.db.execute("SELECT op, pk_text, old, new FROM realtime_wal").fetchall()

    def captured(self, column: str, value: Any) -> Any:
        self.db.execute(f"DELETE FROM {self.name}")
        return self.insert(**{column: value})[column]


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    yield table
    table.db.close()


# One database for all examples of a property: the table is emptied before each.
SHARED = Table()


def canonical(column: str, value: Any) -> object:
    return from_row(KINDS[column], SHARED.captured(column, value))


def test_every_column_stands_in_the_image_in_table_order(table: Table) -> None:
    assert list(table.insert(id=1)) == [name for name, *_ in COLUMNS]
    assert table.insert(id=2)["word"] is None


def test_triggers_are_named_after_their_table_and_operation() -> None:
    names = sqlite.triggers(relation_of(COLUMNS, "zoo_note"), scales={}, whole=True)
    assert list(names) == ["rowcast_zoo_note_i", "rowcast_zoo_note_u", "rowcast_zoo_note_d"]


def test_sqlite_keeps_the_text_of_a_trigger_as_it_was_given(table: Table) -> None:
    wanted = sqlite.triggers(relation_of(COLUMNS, "t"), scales={"price": 2}, whole=True)
    stored = dict(table.db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    assert stored == wanted


@pytest.mark.parametrize(
    ("column", "stored", "expected"),
    [
        ("flag", 1, True),
        ("flag", 0, False),
        ("number", -(2**63), -(2**63)),
        ("number", 2**63 - 1, 2**63 - 1),
        ("price", "12.5", Decimal("12.50")),
        ("price", 7, Decimal("7.00")),
        ("price", "-0.05", Decimal("-0.05")),
        ("uid", "6C84FB9012C411E1840D7B25C5EE775A", "6c84fb90-12c4-11e1-840d-7b25c5ee775a"),
        ("day", "2025-11-03", "2025-11-03"),
        ("clock", "09:32:55.100000", "09:32:55.1"),
        ("clock", "09:32:55", "09:32:55"),
        ("moment", "2025-11-03 09:32:55", "2025-11-03T09:32:55+00:00"),
        ("moment", "2025-11-03 09:32:55.120000", "2025-11-03T09:32:55.12+00:00"),
        ("moment", "2025-11-03 09:32:50.000000", "2025-11-03T09:32:50+00:00"),
        ("local", "2025-11-03 09:32:55.120000", "2025-11-03T09:32:55.12"),
        ("span", -1, "-P0DT00H00M00.000001S"),
        ("address", "2001:db8::1", "2001:db8::1"),
        (
            "document",
            '{"a": [1, null, "x"], "b": 1.50}',
            {"a": [1, None, "x"], "b": Decimal("1.5")},
        ),
        ("document", "null", None),
        ("blob", b"\x00\xffA", "00ff41"),
        ("word", 'a"b\\c\n\x01\u2028\U0001f600', 'a"b\\c\n\x01\u2028\U0001f600'),
        ("word", "before\0after", "before\0after"),
    ],
)
def test_a_value_looks_as_postgresql_would_print_it(
    table: Table, column: str, stored: Any, expected: Any
) -> None:
    assert table.captured(column, stored) == expected


def test_decimals_keep_their_scale_in_the_text(table: Table) -> None:
    table.insert(id=1, price="12.5")
    assert '"price":12.50,' in table.last("new")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (3.0, "3"),
        (-0.0, "0"),
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (1e-7, "1e-07"),
        (1 / 3, "0.3333333333333333"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1234567890123456.0, "1.234567890123456e+15"),
        (123456789.125, "123456789.125"),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
    ],
)
def test_a_float_is_short_where_few_digits_are_exact(table: Table, value: float, text: str) -> None:
    table.insert(id=1, real=value)
    assert f'"real":{text},' in table.last("new")


FLOATS = st.one_of(
    st.floats(allow_nan=False),
    st.decimals(-(10**9), 10**9, places=6).map(float),
    st.builds(lambda m, e: float(f"{m}e{e}"), st.integers(-(10**17), 10**17), st.integers(-30, 30)),
)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(FLOATS)
def test_a_float_reads_back_as_the_same_double(value: float) -> None:
    if value == 0 or 1e-50 <= abs(value) <= 1e50 or math.isinf(value):
        assert canonical("real", value) == value
    else:
        # SQLite 3.51 itself prints these inexactly.
        assert canonical("real", value) == pytest.approx(value, rel=1e-15, abs=5e-324)


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_keeps_every_digit(value: int) -> None:
    assert canonical("number", value) == value


@settings(deadline=None)
@given(st.decimals(-(10**12), 10**12, places=2))
def test_a_decimal_reads_back_as_it_was_written(value: Decimal) -> None:
    assert canonical("price", str(value)) == value


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_reads_back_as_it_was_written(value: str) -> None:
    assert canonical("word", value) == value


@settings(deadline=None)
@given(st.uuids())
def test_a_uuid_gets_its_dashes(value: Any) -> None:
    assert canonical("uid", value.hex) == str(value)


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1, 1, 1), timezones=st.just(UTC)))
def test_a_moment_reads_back_to_the_microsecond(value: datetime) -> None:
    stored = str(value.replace(tzinfo=None))
    assert canonical("moment", stored) == value
    assert canonical("local", stored) == value


@settings(deadline=None)
@given(st.times())
def test_a_time_of_day_reads_back_to_the_microsecond(value: time) -> None:
    assert canonical("clock", str(value)) == value


SPANS = st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8 - 1))


@settings(deadline=None)
@given(SPANS)
def test_a_duration_is_written_as_django_writes_it(value: timedelta) -> None:
    stored = value // timedelta(microseconds=1)
    assert SHARED.captured("span", stored) == duration_iso_string(value)
    assert canonical("span", stored) == value


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(deadline=None)
@given(JSONS)
def test_json_is_nested_and_not_quoted(value: Any) -> None:
    assert SHARED.captured("document", json.dumps(value)) == value


GARBAGE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text("0123456789-:. TZ+", max_size=40),
    st.sampled_from(
        [
            "2025-01-01 00:00:00\0junk",
            "2025-01-01 00:00:00.1.2",
            '2025-01-01 00:00:00"',
            "{",
            '{"a": NaN}',
            "[1,]",
            "{'a': 1}",
            "1e999999",
            "0x10",
            "6c84fb9012c411e1840d7b25c5ee775\0",
        ]
    ),
    st.binary(max_size=40),
)


@settings(max_examples=400, deadline=None)
@given(st.fixed_dictionaries({name: GARBAGE for name in KINDS if name != "id"}))
def test_no_value_in_any_column_fails_the_write_or_breaks_the_image(row: dict[str, Any]) -> None:
    SHARED.db.execute("DELETE FROM t")
    image = SHARED.insert(id=1, **row)
    assert list(image) == list(KINDS)
    # A value the kind can read is read the same in every image.
    SHARED.db.execute("UPDATE t SET id = 2")
    assert {**decode(SHARED.last("new")), "id": 1} == decode(SHARED.last("old")) == image
    SHARED.db.execute("DELETE FROM t")
    assert decode(SHARED.last("old")) == {**image, "id": 2}


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.sampled_from(sorted(set(KINDS) - {"id"})))
def test_bytes_that_are_no_utf8_do_not_fail_the_write(value: bytes, column: str) -> None:
    SHARED.db.execute("DELETE FROM t")
    SHARED.db.execute(f"INSERT INTO t (id, {column}) VALUES (1, CAST(? AS TEXT))", [value])
    raw = SHARED.last("CAST(new AS BLOB)")
    image = decode(raw.decode(errors="replace"))
    assert list(image) == list(KINDS)


def test_a_blob_where_another_value_belongs_is_hex(table: Table) -> None:
    for column in ("flag", "number", "real", "price", "word", "day", "moment", "document"):
        assert table.captured(column, b"\xca\xfe") == "cafe"


def test_a_word_where_a_number_belongs_stays_a_word(table: Table) -> None:
    for column in ("flag", "number", "real", "price", "span"):
        assert table.captured(column, "twelve") == "twelve"


def test_the_smallest_integer_is_no_duration_and_no_error(table: Table) -> None:
    assert table.captured("span", -(2**63)) == -(2**63)


def test_a_table_of_120_columns_is_captured_whole() -> None:
    kinds = [column for column in COLUMNS if column[0] != "id"]
    wide = (
        COLUMNS[0],
        *((f"{name}{n}", t, kind, sql) for n in range(9) for name, t, kind, sql in kinds),
    )
    table = Table(wide, name="wide")
    image = table.insert(id=1, word8="last")
    assert len(image) == len(wide) >= 120
    assert image["word8"] == "last"


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_of_1999_columns_is_within_sqlites_expression_depth(whole: bool) -> None:
    columns = (
        COLUMNS[0],
        *((f"c{n}", "text", Kind.TEXT, "text") for n in range(1998)),
    )
    table = Table(
        columns,
        name="wide",
        captured=None if whole else tuple(c[0] for c in columns[1:]),
        key=("id",) if whole else ("c0",),
    )
    table.insert(id=1, c0="k", c1997="x")
    table.db.execute("UPDATE wide SET c1997 = 'y'")
    assert decode(table.last("new"))["c1997"] == "y"


def test_names_with_quotes_and_points_are_quoted() -> None:
    odd = "od\"d'na.me"
    columns = (COLUMNS[0], (odd, "text", Kind.TEXT, "text"))
    table = Table(columns, name=odd, captured=("id", odd))
    assert table.insert(**{"id": 1, odd: "x"}) == {"id": 1, odd: "x"}


def test_an_update_is_captured_even_when_it_changes_nothing(table: Table) -> None:
    table.insert(id=1, word="a")
    table.db.execute("UPDATE t SET word = 'a'")
    assert table.last("op") == "UPDATE"


def test_a_partial_capture_ignores_updates_of_other_columns() -> None:
    table = Table(captured=("id", "word"))
    assert table.insert(id=1, word="a", number=1) == {"id": 1, "word": "a"}
    table.db.execute("UPDATE t SET number = 2")
    table.db.execute("UPDATE t SET word = 'a'")
    assert len(table.log()) == 1


@pytest.mark.parametrize(
    "change", ["word = 'b'", "word = NULL", "id = 2", "word = 'A'", "word = CAST('a' AS BLOB)"]
)
def test_a_partial_capture_sees_every_change_of_its_columns(change: str) -> None:
    columns = (COLUMNS[0], ("word", "text", Kind.TEXT, "text COLLATE NOCASE"), COLUMNS[2])
    table = Table(columns, captured=("id", "word"))
    table.insert(id=1, word="a")
    table.db.execute(f"UPDATE t SET {change}")
    assert table.last("op") == "UPDATE"


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("word", "plain", "plain"),
        ("uid", "6c84fb9012c411e1840d7b25c5ee775a", "6c84fb90-12c4-11e1-840d-7b25c5ee775a"),
        ("number", 7, "7"),
        ("blob", b"\xff", "ff"),
    ],
)
def test_the_key_is_written_as_people_write_it(column: str, value: Any, text: str) -> None:
    table = Table(key=(column,))
    table.insert(**{column: value})
    assert table.last("pk_text") == text


def test_a_composite_key_is_a_json_array() -> None:
    table = Table(key=("number", "word"))
    table.insert(number=7, word='a"b')
    assert json.loads(table.last("pk_text")) == [7, 'a"b']


def test_a_changed_key_is_logged_under_the_new_one_with_both_images(table: Table) -> None:
    table.insert(id=1)
    table.db.execute("UPDATE t SET id = 5")
    op, key, old, new = table.log()[-1]
    assert (op, key, decode(old)["id"], decode(new)["id"]) == ("UPDATE", "5", 1, 5)


def test_the_capture_time_is_in_microseconds_since_1970(table: Table) -> None:
    before = datetime.now(UTC).timestamp() * 1e6
    table.insert(id=1)
    after = datetime.now(UTC).timestamp() * 1e6
    # SQLite's clock counts milliseconds.
    assert before - 1_000 <= table.last("captured_us") <= after + 1_000


def test_the_writers_own_results_are_not_disturbed(table: Table) -> None:
    cursor = table.db.execute("INSERT INTO t (id) VALUES (41), (42)")
    assert (cursor.lastrowid, cursor.rowcount) == (42, 2)
    returned = table.db.execute("INSERT INTO t (word) VALUES ('x') RETURNING id").fetchall()
    assert returned == [(43,)]
