"""The differential test: a predicate is true of a row in Python exactly when SQL selects it.

Rows go into real tables and come back by two ways, as instances and as what the triggers wrote;
on both images the evaluator must agree with the database about every predicate and about its
negation, so that unknown is told from false too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.core.management.color import no_style
from django.db import NotSupportedError, connection, transaction
from django.db.models import Count, JSONField, Q, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls.predicates.bind import bind
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import index_keys
from auth_rls.predicates.kinds import OPAQUE, Kind
from auth_rls.predicates.parse import MAX_DEPTH, MAX_SELECTS
from auth_rls.predicates.predicate import (
    FALSE,
    TRUE,
    UNKNOWN,
    All,
    Any_,
    Not,
    Predicate,
    Ref,
    Select,
    Test,
)
from auth_rls.predicates.simplify import simplify
from auth_rls.sql.columns import columns_of
from auth_rls.sql.compile import condition, shielded, widened
from auth_rls.sql.dialects.registry import DIALECTS
from auth_rls.sql.rows import canonical
from realtime.event_log.event import RowImage
from realtime.models import WalEntry
from tests.support.predicates import (
    CELLS,
    KINDS,
    MODELS,
    predicates,
)
from tests.support.vendors import on_postgresql, on_sqlite
from tests.zoo.models import Member, Note, Specimen, Team

pytestmark = pytest.mark.django_db


def stored(label: str) -> list[dict[str, object]]:
    """Every row as Django reads it, its values as predicates compare them."""
    columns = columns_of(MODELS[label])
    return [
        {name: canonical(column, row[column.attname]) for name, column in columns.items()}
        for row in MODELS[label].objects.values()
    ]


def captured(pks: list[int]) -> dict[int, RowImage]:
    """What the triggers wrote of those specimens."""
    entries = WalEntry.objects.filter(table_name="zoo_specimen", op="INSERT")
    raw = entries.filter(pk_text__in=map(str, pks)).values_list("pk_text", "new")
    return {int(pk): RowImage(new.encode(), KINDS["zoo.Specimen"]) for pk, new in raw}


def comparable(row: Mapping[str, object]) -> dict[str, object]:
    """The row with no more of its opaque values than whether they are there."""
    kinds = KINDS["zoo.Specimen"]
    return {name: value is None if kinds[name] in OPAQUE else value for name, value in row.items()}


def set_of(select: Select) -> list[object]:
    """A select's values as the evaluator sees them."""
    accepts = matcher(select.where)
    return [row[select.column] for row in stored(select.model) if accepts(row) is True]


def selected(predicate: Predicate) -> set[int]:
    return set(Specimen.objects.filter(condition(predicate, Specimen)).values_list("pk", flat=True))


@pytest.fixture
def world(db: None) -> None:
    """The tables that selects read, NULLs among them, and specimens that are all edge."""
    users = get_user_model().objects
    first = users.create(pk=1, username="first")
    second = users.create(pk=2, username="second")
    teams = [Team.objects.create(pk=pk, name=name) for pk, name in ((1, "a"), (2, "B"), (7, "é"))]
    Member.objects.create(user=first, team=teams[0], role="admin")
    Member.objects.create(user=second, team=teams[2], role="Member")
    zero, top = UUID(int=0), UUID(int=2**128 - 1)
    moment = datetime(2025, 11, 3, 9, 32, 55, 1, tzinfo=UTC)
    Note.objects.create(title="", score=None, price=None, created=None, ref=None)
    Note.objects.create(title="aB", score=7, price="1.01", created=moment, ref=zero)
    Note.objects.create(title="É%", score=0, price="-0.01", ref=top, is_public=True, owner=first)
    Note.objects.create(title="a", score=2, price="0", team=teams[1], owner=second)
    Specimen.objects.create(pk=1)
    Specimen.objects.create(pk=2, char="aB", text="aaB", slug=str(zero), uuid=zero, moment=moment)
    Specimen.objects.create(pk=3, char="", text="", slug="a%7", uuid=top, boolean=False, big=7)
    Specimen.objects.create(pk=4, char="É%", text="a", decimal="1.0100", renamed=0, owner_id=1)
    Specimen.objects.create(pk=5, char="éa", text="a_\\", decimal="0", real=-0.0, owner_id=2)
    with connection.cursor() as cursor:
        # PostgreSQL does not notice that these keys are taken.
        for statement in connection.ops.sequence_reset_sql(no_style(), [Specimen, Team]):
            cursor.execute(statement)


def check(predicate: Predicate) -> None:
    bound = bind(predicate, lambda ref: None, set_of)
    simple = simplify(bound)
    keys = index_keys(simple)
    decide, decide_simple = matcher(bound), matcher(simple)
    # An exact predicate must be selected exactly; one with a regular expression within bounds.
    exact = widened(predicate) == predicate
    inside, outside = selected(widened(predicate)), selected(widened(Not(predicate)))
    concrete = selected(simple) if exact else inside
    rows = {int(str(row["id"])): row for row in stored("zoo.Specimen")}
    images = captured(list(rows))
    assert images.keys() == rows.keys()
    for pk, row in rows.items():
        assert comparable(images[pk]) == comparable(row)
        verdict = decide(row)
        assert decide_simple(row) is verdict
        assert decide(images[pk]) is verdict
        if exact:
            assert (pk in inside, pk in outside) == (verdict is True, verdict is False), row
            assert (pk in concrete) == (verdict is True), row
        else:
            assert pk in inside or verdict is not True
            assert pk in outside or verdict is not False
        if verdict is True and keys is not None:
            assert any(row[column] == value for column, value in keys)


@pytest.mark.slow
def test_sql_selects_a_row_exactly_when_its_predicate_is_true(world: None) -> None:
    specimens = st.fixed_dictionaries({name: st.none() | cell for name, cell in CELLS.items()})

    @settings(
        max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(st.lists(specimens, max_size=2), predicates("zoo.Specimen", 4))
    def agree(rows: list[dict[str, Any]], predicate: Predicate) -> None:
        with transaction.atomic():
            for row in rows:
                Specimen.objects.create(**row)
            check(predicate)
            transaction.set_rollback(True)

    agree()


def test_a_long_list_agrees_too(world: None) -> None:
    crowd = range(10_000, 14_000)
    for column, values in (
        ("big", [7, *crowd]),
        ("char", ["aB", "É%", *map(str, crowd)]),
        ("decimal", [Decimal("1.01"), *(Decimal(n) + Decimal("1e-9") for n in crowd)]),
        ("decimal", [Decimal(n) + Decimal("1e-9") for n in crowd]),
        ("decimal", [Decimal(f"-1e{n}") for n in crowd]),
        ("real", [0.0, *(n / 7 for n in crowd)]),
        ("uuid", [str(UUID(int=n)) for n in (0, *crowd)]),
        ("moment", [datetime(2025, 11, 3, 9, 32, 55, n % 10**6, UTC) for n in (1, *crowd)]),
    ):
        check(Test(column, "in", frozenset(values)))


def test_a_thousand_conditions_are_not_too_deep(world: None) -> None:
    check(Any_(tuple(Test("big", "exact", n) for n in range(1000))))
    deep: Predicate = Test("big", "exact", 7)
    for n in range(30):
        deep = Not(All((deep, *(Test("char", "iexact", f"{n} {m}") for m in range(30)))))
    check(deep)


def test_the_deepest_policy_that_parses_fits_the_parser(world: None) -> None:
    def full(depth: int) -> Predicate:
        if not depth:
            return Test("role", "exact", "x")
        return Not((All, Any_)[depth % 2]((full(depth - 1), full(depth - 1))))

    for selects in range(MAX_SELECTS + 1):
        predicate = full(4)
        for _ in range(selects):
            where = All((Test("role", "exact", "y"), predicate))
            predicate = Test("user_id", "in", Select("zoo.Member", "user_id", where, "", Kind.INT))
        for _ in range(MAX_DEPTH // 2 - 4 - selects):
            predicate = Not(Any_((Test("role", "exact", "y"), predicate)))
        rows = Member.objects.filter(condition(predicate, Member))
        assert Team.objects.filter(member__in=rows).count() <= 2


def test_a_null_in_json_is_null(world: None) -> None:
    Specimen.objects.create(json=Value(None, JSONField()))
    Specimen.objects.create(json="null")
    check(Test("json", "isnull", True))


@on_sqlite
def test_a_case_blind_collation_blurs_no_comparison(world: None) -> None:
    # The column's own collation is what an index or an ORDER BY uses, never a predicate.
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE blurred (name text COLLATE NOCASE)")
        cursor.execute("INSERT INTO blurred VALUES ('aB')")
        column = columns_of(Note)["title"]
        for op, value, expected in (
            ("exact", "ab", False),
            ("in", frozenset({"ab"}), False),
            ("gt", "AB", True),
            ("startswith", "ab", False),
            ("endswith", "b", False),
            ("iexact", "AB", True),
            ("exact", "aB", True),
        ):
            sql, params = DIALECTS["sqlite"].compare(column, op, value, "blurred.name")
            cursor.execute(f"SELECT {sql} FROM blurred", params)
            assert bool(cursor.fetchone()[0]) is expected


@on_postgresql
@pytest.mark.parametrize("column", ["real", "decimal"])
def test_nan_is_no_value_to_any_test(world: None, column: str) -> None:
    Specimen.objects.all().delete()
    WalEntry.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO zoo_specimen (id, {column}) VALUES (1, 'NaN')")
    for predicate in (
        Test(column, "isnull", True),
        Test(column, "isnull", False),
        Test(column, "exact", Decimal(1) if column == "decimal" else 1.0),
        Test(column, "gt", Decimal(1) if column == "decimal" else 1.0),
    ):
        image = captured([1])[1]
        assert matcher(predicate)(image) is None
        assert selected(predicate) == selected(Not(predicate)) == set()


MEMBERSHIP = Test(
    "team_id",
    "in",
    Select("zoo.Member", "team_id", Test("user_id", "exact", 2), "", Kind.INT),
)


def test_a_condition_stands_beside_joins_and_other_filters(world: None) -> None:
    team = Team.objects.get(pk=7)
    mine = Note.objects.create(title="mine", team=team)
    own = condition(MEMBERSHIP, Note)
    notes = Note.objects.filter(team__member__role="Member", team__name="é")
    assert list(notes.filter(own).order_by("team__name")) == [mine]
    assert notes.filter(own, title="mine").count() == 1
    assert not notes.filter(own).exclude(title="mine").exists()
    assert set(Note.objects.filter(Q(title="aB") | own).values_list("title", flat=True)) == {
        "aB",
        "mine",
    }
    assert list(Team.objects.filter(note__in=Note.objects.filter(own))) == [team]
    assert Team.objects.filter(note__pk=mine.pk).annotate(n=Count("note")).get().n == 1
    assert Note.objects.filter(own).update(title="still mine") == 1
    assert Note.objects.filter(own).delete()[0] == 1


def test_a_select_may_read_the_table_it_narrows_and_nest(world: None) -> None:
    inner = Select("zoo.Member", "team_id", Test("role", "exact", "Member"), "", Kind.INT)
    outer = Select("zoo.Member", "user_id", Test("team_id", "in", inner), "", Kind.INT)
    rows = Member.objects.filter(condition(Test("user_id", "in", outer), Member))
    assert list(rows.values_list("role", flat=True)) == ["Member"]
    check(Test("owner_id", "in", outer))
    itself = Select("zoo.Specimen", "other_name", TRUE, "", Kind.INT)
    check(Test("big", "in", itself))


@pytest.mark.parametrize(
    "predicate",
    [
        Test("nothing", "exact", 1),
        Test("owner_id", "exact", Ref("user", ("id",), Kind.INT)),
        Test("owner_id", "in", (1, Ref("user", ("id",), Kind.INT))),
        Test("owner_id", "in", Select("zoo.Member", "nothing", TRUE, "", Kind.INT)),
        Test("title", "match", "a"),
        Test("title", "nonsense", "a"),
    ],
)
def test_what_sql_cannot_say_is_refused(predicate: Predicate) -> None:
    with pytest.raises(ValueError):
        str(Note.objects.filter(condition(predicate, Note)).query)


@on_sqlite
def test_a_filter_is_put_to_no_row_that_the_policy_hides() -> None:
    # A connection of its own: the function would stay in the shared one.
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE zoo_note (score INTEGER, title TEXT)")
    database.executemany(
        "INSERT INTO zoo_note VALUES (?, 'note ' || ?)", [(n, n) for n in range(5)]
    )
    judged: list[str] = []

    def glob(pattern: str, text: str) -> bool:
        judged.append(text)
        return True

    database.create_function("glob", 2, glob)
    database.create_function("rowcast_text", 2, lambda kind, digits: bytes.fromhex(digits).decode())
    pattern = Test("title", "like", "note_%")
    for policy in (Test("score", "gte", 3), Not(Test("score", "lt", 3))):
        judged.clear()
        rows = Note.objects.filter(shielded(policy, pattern, Note)).values_list("score")
        sql, params = rows.query.sql_with_params()
        assert sorted(database.execute(sql.replace("%s", "?"), params)) == [(3,), (4,)]
        assert set(judged) == {"note 3", "note 4"}
    database.close()


def test_behind_its_shield_a_filter_means_what_it_means_beside_the_policy(world: None) -> None:
    filters = [
        TRUE,
        FALSE,
        UNKNOWN,
        Test("char", "like", "%a%"),
        Test("id", "in", frozenset({1, 2, 3})),
        All((Test("owner_id", "exact", 1), Not(Test("text", "exact", "a")))),
    ]
    for policy in (TRUE, FALSE, Test("big", "isnull", True), Not(Test("uuid", "isnull", False))):
        for filter_ in filters:
            rows = Specimen.objects.filter(shielded(policy, filter_, Specimen))
            assert set(rows.values_list("pk", flat=True)) == selected(All((policy, filter_)))


def test_another_database_is_refused_rather_than_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "mysql")
    with pytest.raises(NotSupportedError, match="not for mysql"):
        Note.objects.filter(condition(Test("score", "exact", 1), Note)).exists()
