"""Sets that are read together are what each would be if it were read by itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth_rls.predicates.kinds import OPAQUE, Kind
from auth_rls.predicates.predicate import All, Predicate, Select, Test
from auth_rls.sets import reader
from auth_rls.sets.grouping import group_selects
from auth_rls.sets.reader import read_many, read_members, tells_rows_apart
from auth_rls.sql.columns import column_of, columns_of
from tests.support.predicates import CELLS, KINDS, LITERALS, predicates
from tests.support.vendors import on_sqlite
from tests.zoo.models import Member, Specimen, Team

pytestmark = pytest.mark.django_db

LABEL = "zoo.Specimen"
KEYS = ["other_name", "big", "small", "owner_id", "char", "text", "slug", "uuid", "generated"]
OTHERS = ["boolean", "real", "decimal", "date", "moment", "inet", "duration"]
COLUMNS = [name for name, kind in KINDS[LABEL].items() if kind not in OPAQUE]


def one_by_one(selects: list[Select]) -> dict[Select, Any]:
    return {select: read_members(select, "default") for select in selects}


@st.composite
def crowds(draw: st.DrawFn) -> list[Select]:
    """Selects that could well be of one shape, and some that are of none."""
    found: list[Select] = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(KEYS) | st.sampled_from(OTHERS))
        column = draw(st.sampled_from(COLUMNS))
        kind = draw(st.sampled_from([KINDS[LABEL][column], Kind.TEXT]))
        prefix = draw(st.sampled_from(["", "a%"])) if kind is Kind.TEXT else ""
        rest: tuple[Predicate, ...] = draw(
            st.lists(predicates(LABEL, 2, deep=False), max_size=2).map(tuple)
        )
        for value in draw(st.lists(cells(key), min_size=1, max_size=4)):
            where = All((Test(key, "exact", value), *rest))
            found.append(Select(LABEL, column, where, prefix, kind))
    return found


def cells(key: str) -> st.SearchStrategy[Any]:
    """Few enough that rows have them."""
    kind = KINDS[LABEL][key]
    few = {
        Kind.INT: st.sampled_from([1, 2, 7]),
        Kind.TEXT: st.sampled_from(["", "a", "A", "é", "a ", "7"]),
        Kind.UUID: st.sampled_from([str(UUID(int=n)) for n in (0, 7)]),
    }
    return few.get(kind, LITERALS[kind])


FEW = {
    "renamed": st.sampled_from([1, 2, 7]),
    "big": st.sampled_from([1, 2, 7]),
    "small": st.sampled_from([1, 2, 7]),
    "char": st.sampled_from(["", "a", "A", "é", "a ", "7"]),
    "text": st.sampled_from(["", "a", "A", "é", "a ", "7"]),
    "slug": st.sampled_from(["", "a", "A", "é", "a ", "7"]),
    "uuid": st.sampled_from([UUID(int=n) for n in (0, 7)]),
}


@pytest.mark.slow
def test_read_together_or_one_by_one_the_sets_are_the_same() -> None:
    for pk in (1, 2):
        get_user_model().objects.create(pk=pk, username=str(pk))
    specimens = st.fixed_dictionaries(
        {name: st.none() | FEW.get(name, cell) for name, cell in CELLS.items()}
    )

    @settings(
        max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(st.lists(specimens, max_size=4), crowds())
    def agree(rows: list[dict[str, Any]], selects: list[Select]) -> None:
        with transaction.atomic():
            for row in rows:
                Specimen.objects.create(**row)
            found = read_many(selects, "default")
            assert found == one_by_one(selects)
            for select, counts in one_by_one(selects).items():
                # Equal is not the same: 1 is True, and they are two texts.
                assert set(map(repr, counts)) == set(map(repr, found[select]))
            transaction.set_rollback(True)

    agree()


def of_user(user: int) -> Select:
    return Select("zoo.Member", "team_id", Test("user_id", "exact", user), kind=Kind.INT)


def test_a_thousand_subjects_cost_a_few_queries() -> None:
    users = [get_user_model()(pk=pk, username=str(pk)) for pk in range(1, 1_002)]
    get_user_model().objects.bulk_create(users)
    teams = [Team.objects.create(name=name) for name in "ab"]
    Member.objects.bulk_create(
        [Member(user=user, team=team) for user in users[1:] for team in (*teams, teams[0])]
    )
    selects = [of_user(user.pk) for user in users]
    with CaptureQueriesContext(connection) as queries:
        found = read_many(selects, "default")
    assert len(queries) == 3
    assert found[selects[0]] == {}
    assert all(found[one] == {teams[0].pk: 2, teams[1].pk: 1} for one in selects[1:])


def test_where_the_rows_that_come_have_another_key_than_was_asked_for_each_is_read_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = get_user_model().objects.create(pk=1, username="a")
    team = Team.objects.create(name="a")
    Member.objects.create(user=user, team=team)
    selects = [of_user(1), of_user(2)]
    read = reader.canonical
    strange = columns_of(Member)["user_id"]
    # A database that finds equal what is not equal here.
    monkeypatch.setattr(
        reader,
        "canonical",
        lambda column, value: 3 if column == strange else read(column, value),
    )
    assert read_many(selects, "default") == {selects[0]: {team.pk: 1}, selects[1]: {}}


class Upper(models.CharField):  # type: ignore[type-arg]
    """A field that shows other values than the database has."""

    def from_db_value(self, value: str, *_: object) -> str:
        return value.upper()


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("user_id", True),
        ("role", True),
        ("team_id", True),
        ("id", True),
        ("nothing", False),
    ],
)
def test_keys_and_plain_texts_tell_rows_apart(column: str, told: bool) -> None:
    selects = [Select("zoo.Member", "x", Test(column, "exact", n)) for n in "ab"]
    columns = columns_of(Member)
    groups, alone = group_selects(
        selects, lambda _, name: name in columns and tells_rows_apart(columns[name]), 500
    )
    assert (bool(groups), bool(alone)) == (told, not told)


def test_a_field_that_translates_or_blurs_its_values_does_not_tell_rows_apart() -> None:
    assert tells_rows_apart(columns_of(Team)["name"])
    specimen = columns_of(Specimen)
    assert not any(tells_rows_apart(specimen[name]) for name in ("generated", *OTHERS))
    for field in (Upper(max_length=100), models.CharField(db_collation="NOCASE", max_length=100)):
        field.set_attributes_from_name("name")
        field.model = Team
        assert not tells_rows_apart(column_of(field))


@on_sqlite
def test_what_sqlite_holds_against_its_columns_types_is_counted_as_by_itself() -> None:
    for pk in (1, 2):
        get_user_model().objects.create(pk=pk, username=str(pk))
        Specimen.objects.create(pk=pk, big=pk, uuid=UUID(int=0xAB), char=str(pk))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_specimen SET uuid = upper(uuid), big = 'word' WHERE id = 2")
        cursor.execute("INSERT INTO zoo_specimen (big, char, small) VALUES (1.0, 'x', 'word')")
        cursor.execute("INSERT INTO zoo_specimen (big, char) VALUES (1.5, X'31')")
    uuids = [Test("uuid", "exact", str(UUID(int=n))) for n in (0xAB, 0)]
    bigs = [Test("big", "exact", n) for n in (1, 2)]
    chars = [Test("char", "exact", text) for text in ("1", "2", "x")]
    selects = [Select(LABEL, "id", test) for test in (*uuids, *bigs, *chars)]
    selects += [Select(LABEL, "small", test, kind=Kind.INT) for test in (*bigs, *chars)]
    assert read_many(selects, "default") == one_by_one(selects)
