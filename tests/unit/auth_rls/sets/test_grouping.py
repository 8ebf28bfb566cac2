"""Which selects one query can answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, All, Any_, Not, Predicate, Select, Test
from auth_rls.sets.grouping import group_selects


def everything(model: str, column: str) -> bool:
    return True


def of(where: Predicate, column: str = "team", **options: str) -> Select:
    return Select("Member", column, where, kind=Kind.INT, **options)


def user(number: int) -> Test:
    return Test("user", "exact", number)


ADMIN = Test("role", "exact", "admin")


def test_selects_that_differ_in_one_value_are_one_group() -> None:
    mine = [of(user(number)) for number in range(3)]
    (group,), alone = group_selects(mine, everything, 500)
    assert list(group.selects) == mine
    assert group.where == Test("user", "in", frozenset({0, 1, 2}))
    assert alone == []


def test_what_else_they_ask_for_is_asked_of_all() -> None:
    (group,), alone = group_selects(
        [of(All((user(number), ADMIN))) for number in range(2)], everything, 500
    )
    assert group.where == All((ADMIN, Test("user", "in", frozenset({0, 1}))))
    assert (group.shape.key, alone) == ("user", [])


def test_where_two_values_could_tell_them_apart_the_one_with_more_company_does() -> None:
    crowd = [of(All((user(number), ADMIN))) for number in range(5)]
    other = of(All((user(0), Test("role", "exact", "guest"))))
    (group,), alone = group_selects([other, *crowd], everything, 500)
    assert (list(group.selects), alone) == (crowd, [other])


def test_selects_of_another_table_column_prefix_or_kind_are_not_of_the_group() -> None:
    first = of(user(1))
    others = [
        Select("Guest", "team", user(2), kind=Kind.INT),
        of(user(2), "role"),
        of(user(2), prefix="room:"),
        Select("Member", "team", user(2), kind=Kind.TEXT),
        of(All((user(2), ADMIN))),
    ]
    assert group_selects([first, *others], everything, 500) == ([], [first, *others])


def test_only_an_equality_that_must_hold_tells_them_apart() -> None:
    wheres: list[Predicate] = [
        TRUE,
        *(Not(user(number)) for number in range(2)),
        *(Any_((user(number), ADMIN)) for number in range(2)),
        *(Test("user", "gt", number) for number in range(2)),
        *(Test("user", "isdistinct", number) for number in range(2)),
        *(Test("user", "in", frozenset({number, 9})) for number in range(2)),
        *(Test("user", "in", of(user(number))) for number in range(2)),
    ]
    found = [of(where) for where in wheres]
    assert group_selects(found, everything, 500) == ([], found)


def test_a_column_that_may_not_tell_rows_apart_does_not() -> None:
    mine = [of(All((user(number), ADMIN))) for number in range(2)]
    assert group_selects(mine, lambda model, column: column == "role", 500) == ([], mine)
    # A row does not say twice what it holds.
    theirs = [of(user(number), "user") for number in range(2)]
    assert group_selects(theirs, everything, 500) == ([], theirs)


def test_a_group_is_no_larger_than_it_may_be_and_what_is_left_alone_stands_alone() -> None:
    mine = [of(user(number)) for number in range(7)]
    groups, alone = group_selects(mine, everything, 3)
    assert [list(group.selects) for group in groups] == [mine[:3], mine[3:6]]
    assert alone == mine[6:]


def test_a_long_list_beside_the_key_makes_them_stand_alone() -> None:
    crowd = Test("team", "in", frozenset(range(1_000)))
    mine = [of(All((user(number), crowd)), "id") for number in range(2)]
    assert group_selects(mine, everything, 500) == ([], mine)


def test_selects_that_say_the_same_in_other_words_share_a_key() -> None:
    same = [of(user(1)), of(All((user(1), TRUE))), of(Test("user", "in", frozenset({1})))]
    (group,), alone = group_selects([*same, of(user(2))], everything, 500)
    assert group.of == {1: tuple(same), 2: (of(user(2)),)}
    assert alone == []


_values = st.integers(0, 2)
_tests = st.builds(
    Test, st.sampled_from("ab"), st.sampled_from(["exact", "gt", "isdistinct"]), _values
) | st.builds(Test, st.just("c"), st.just("in"), st.frozensets(_values, max_size=2))
_wheres = st.recursive(
    _tests | st.just(TRUE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple).map(All),
        st.lists(inner, max_size=3).map(tuple).map(Any_),
        inner.map(Not),
    ),
    max_leaves=5,
)
_rows = st.fixed_dictionaries(dict.fromkeys("abc", st.none() | _values))


@given(st.lists(_wheres, max_size=12), st.lists(_rows, max_size=6), st.integers(2, 4))
def test_each_select_has_the_rows_of_its_group_that_have_its_key(
    wheres: list[Predicate], rows: list[dict[str, int | None]], most: int
) -> None:
    wanted = [of(where, "id") for where in wheres]
    groups, alone = group_selects(wanted, everything, most)
    told = [select for group in groups for select in group.selects]
    assert sorted(map(repr, [*told, *alone])) == sorted(map(repr, dict.fromkeys(wanted)))
    for group in groups:
        assert 1 < len(group.of) <= most
        ours = matcher(group.where)
        for value, selects in group.of.items():
            for select in selects:
                alone_finds = matcher(select.where)
                for row in rows:
                    together = ours(row) is True and row[group.shape.key] == value
                    assert together is (alone_finds(row) is True)
