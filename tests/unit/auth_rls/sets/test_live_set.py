"""Lookups: after every change the sets are what a fresh look at the rows would find."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.index import Index, index_keys
from auth_rls.predicates.kinds import Kind
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
from auth_rls.predicates.selects import direct_selects, resolve
from auth_rls.sets.live_set import Change, LiveSets, SetDelta

Rows = dict[tuple[str, int], dict[str, Any]]
COLUMNS = frozenset({"id", "user", "team", "role"})


def table_of(label: str) -> str:
    return label.removeprefix("app.")


def of_user(user: int, **fields: Any) -> Select:
    return Select("app.member", "team", Test("user", "exact", user), kind=Kind.INT, **fields)


OPEN = Select("app.member", "user", Test("role", "exact", "open"), kind=Kind.INT)
SELECTS = [
    of_user(1),
    of_user(2),
    Select("app.member", "team", TRUE, kind=Kind.INT),
    Select("app.member", "team", UNKNOWN, kind=Kind.INT),
    Select("app.member", "team", Test("user", "exact", 1), prefix="room:"),
    Select("app.member", "team", Not(Test("user", "exact", 1)), kind=Kind.INT),
    Select("app.member", "role", All((Test("user", "gt", 1), Test("team", "exact", 1)))),
    OPEN,
    # Rows of one table chosen by a set of another, and by one of the same table.
    Select("app.board", "id", Test("team", "in", of_user(1)), kind=Kind.INT),
    Select("app.board", "id", Not(Test("team", "in", of_user(2))), kind=Kind.INT),
    Select("app.member", "team", Test("user", "in", OPEN), kind=Kind.INT),
    Select(
        "app.member",
        "team",
        Any_(
            (
                Test("user", "exact", 2),
                Test("team", "in", Select("app.board", "id", Test("team", "in", of_user(1)))),
            )
        ),
        kind=Kind.INT,
    ),
]


def fresh(select: Select, rows: Rows) -> dict[object, int]:
    """What the select finds among these rows, and how often: by looking at every one."""
    judge = matcher(select.where, lambda inner: frozenset(fresh(inner, rows)))
    counts: dict[object, int] = {}
    for (table, _), row in rows.items():
        if table == table_of(select.model) and judge(row) is True:
            value = row.get(select.column)
            if value is not None:
                found = f"{select.prefix}{value}" if select.kind is Kind.TEXT else value
                counts[found] = counts.get(found, 0) + 1
    return counts


_values = st.fixed_dictionaries(
    {
        "user": st.none() | st.integers(1, 3),
        "team": st.none() | st.integers(1, 3),
        "role": st.sampled_from([None, "open", "shut"]),
    }
)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["member", "board"]), st.integers(1, 4), _values),
        st.tuples(st.just("put"), st.just("member"), st.integers(1, 4), _values),
        st.tuples(st.just("delete"), st.sampled_from(["member", "board"]), st.integers(1, 4)),
        st.tuples(st.just("empty"), st.sampled_from(["member", "board"])),
        st.tuples(st.just("blind"), st.integers(1, 4), _values),
    ),
    max_size=12,
)


def happen(rows: Rows, step: Any) -> Change | None:
    """Do it to the rows; the change as it is captured."""
    if step[0] == "empty":
        for key in [key for key in rows if key[0] == step[1]]:
            del rows[key]
        return Change(step[1], COLUMNS, None, None)
    if step[0] == "delete":
        old = rows.pop((step[1], step[2]), None)
        return None if old is None else Change(step[1], COLUMNS, old, None)
    blind = step[0] == "blind"
    table, key, values = ("member", *step[1:]) if blind else step[1:]
    old = rows.get((table, key))
    new = rows[table, key] = {"id": key, **values}
    if not blind:
        return Change(table, COLUMNS, old, new)
    # As it was captured before anybody read the roles.
    seen = COLUMNS - {"role"}
    bare = [row and {n: v for n, v in row.items() if n in seen} for row in (old, new)]
    return Change(table, seen, *bare)


def filled(rows: Rows, selects: list[Select]) -> LiveSets:
    lookups = LiveSets(table_of)

    def add(select: Select) -> None:
        for inner in direct_selects(select.where):
            add(inner)
        if select not in lookups:
            lookups.add(select, fresh(select, rows), True)

    for select in selects:
        add(select)
    return lookups


def seed(rows: Rows, steps: Any) -> None:
    for step in steps:
        happen(rows, step)


@given(before=_steps, after=_steps, chosen=st.sets(st.sampled_from(SELECTS), min_size=1))
def test_after_every_change_a_set_is_what_a_fresh_look_finds(
    before: Any, after: Any, chosen: set[Select]
) -> None:
    rows: Rows = {}
    seed(rows, before)
    lookups = filled(rows, sorted(chosen, key=repr))
    seen = {select: lookups[select].values for select in lookups}
    index: Index[Select] = Index(lookups.members)
    for select in lookups:
        index.add(select, index_keys(Test("team", "in", select)))
    for step in after:
        change = happen(rows, step)
        if change is None:
            continue
        shifts = lookups.apply(change)
        for select in shifts.stale:
            shift = lookups.replace(select, fresh(select, rows), True)
            earlier = shifts.of.get(select, SetDelta())
            added = (earlier.added - shift.removed) | (shift.added - earlier.removed)
            removed = (earlier.removed - shift.added) | (shift.removed - earlier.added)
            shifts.of[select] = SetDelta(added, removed)
        for select in lookups:
            assert lookups[select].counts == fresh(select, rows)
            assert lookups[select].exact
            shift = shifts.of.get(select, SetDelta())
            assert lookups[select].values == (seen[select] | shift.added) - shift.removed
            assert not shift.added & seen[select] and shift.removed <= seen[select]
            seen[select] = lookups[select].values
            index.follow(select, shift.added, shift.removed)
        for team in (None, 1, 2, 3, "room:1", "open"):
            found = index.candidates({"team": team})
            assert set(found) == {select for select in lookups if team in lookups.members(select)}


@given(before=_steps, after=_steps, chosen=st.sets(st.sampled_from(SELECTS), min_size=1))
def test_what_a_later_look_found_is_taken_back_to_where_the_log_stands(
    before: Any, after: Any, chosen: set[Select]
) -> None:
    rows: Rows = {}
    seed(rows, before)
    wanted = filled(rows, sorted(chosen, key=repr))
    changes = [
        change
        for step in after
        if step[0] not in ("empty", "blind") and (change := happen(rows, step)) is not None
    ]
    found = LiveSets(table_of)
    for select in wanted:
        # Each level by what the one below it was at the place.
        flat = resolve(select.where, lambda inner: found[inner].values)
        now = fresh(Select(select.model, select.column, flat, select.prefix, select.kind), rows)
        found.rewind([found.add(select, now, True)], changes)
        assert found[select].counts == wanted[select].counts
        assert found[select].exact


def test_the_second_of_two_memberships_may_go_without_the_first() -> None:
    rows: Rows = {("member", key): {"id": key, "user": 1, "team": 7} for key in (1, 2)}
    lookups = filled(rows, [of_user(1)])
    for left in ({7}, set()):
        change = happen(rows, ("delete", "member", 1 if left else 2))
        assert change is not None
        shifts = lookups.apply(change)
        assert lookups[of_user(1)].values == left
        assert shifts.of == ({} if left else {of_user(1): SetDelta(removed=frozenset({7}))})


def test_a_change_touches_the_sets_of_its_own_user_alone() -> None:
    lookups = filled({}, [of_user(user) for user in range(1_000)])
    row = {"id": 1, "user": 5, "team": 7, "role": None}
    moved = {**row, "user": 6}
    assert list(lookups.apply(Change("member", COLUMNS, None, row)).of) == [of_user(5)]
    assert set(lookups.apply(Change("member", COLUMNS, row, moved)).of) == {of_user(5), of_user(6)}
    assert lookups.apply(Change("member", COLUMNS, moved, {**moved, "role": "open"})).of == {}


def test_a_row_that_leaves_and_was_never_counted_makes_the_set_stale() -> None:
    lookups = filled({}, [of_user(1)])
    shifts = lookups.apply(Change("member", COLUMNS, {"id": 1, "user": 1, "team": 7}, None))
    assert shifts.stale == [of_user(1)]
    assert lookups.apply(Change("member", COLUMNS, None, {"user": 2, "team": 7})).stale == []
    assert lookups.apply(Change("member", COLUMNS, None, {"user": 1, "team": 8})).stale
    lookups.replace(of_user(1), {8: 1}, True)
    assert not lookups.apply(Change("member", COLUMNS, None, {"user": 1, "team": 9})).stale
    assert lookups[of_user(1)].values == {8, 9}


def test_what_nobody_needs_is_forgotten_altogether() -> None:
    lookups = filled({}, SELECTS)
    assert lookups.reads("member") and lookups.reads("board")
    for select in reversed(list(lookups)):
        lookups.discard(select)
    assert len(lookups) == 0
    assert not lookups.reads("member") and not lookups.reads("board")


MINE = of_user(1)


@pytest.mark.parametrize(
    ("predicate", "keys"),
    [
        (Test("team", "in", MINE), {("team", MINE)}),
        (All((Test("team", "in", MINE), Test("id", "exact", 1))), {("id", 1)}),
        (Any_((Test("team", "in", MINE), Test("id", "exact", 1))), {("team", MINE), ("id", 1)}),
        (Not(Test("team", "in", MINE)), None),
        (
            All((Test("team", "in", MINE), Test("id", "in", frozenset(range(99))))),
            {("team", MINE)},
        ),
    ],
)
def test_a_set_is_a_key_of_its_own(predicate: Predicate, keys: set[Any] | None) -> None:
    assert index_keys(predicate) == keys


def test_a_predicate_follows_its_set_and_resolves_to_what_it_is_now() -> None:
    lookups = filled({}, [MINE])
    inside = Test("team", "in", MINE)
    judge, outside = (matcher(each, lookups.members) for each in (inside, Not(inside)))

    def resolved() -> Predicate:
        return resolve(inside, lambda select: lookups[select].values)

    assert judge({"team": None}) is False and outside({"team": 7}) is True
    assert resolved() == FALSE
    lookups.apply(Change("member", COLUMNS, None, {"user": 1, "team": 7}))
    assert judge({"team": None}) is None and judge({"team": 7}) is True
    assert outside({"team": 7}) is False and outside({"team": 8}) is True
    assert resolved() == Test("team", "exact", 7)
