"""Concerns: which changes may have altered a verdict, and which certainly have not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.predicate import TRUE, Predicate, Select, Test
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.subscriptions.dependencies import Dependence, VerdictDependencies, key_is, of_select
from realtime.wal.entry import ColumnInfo, Relation

KINDS = {"id": Kind.INT, "user_id": Kind.INT, "team_id": Kind.INT, "role": Kind.TEXT}
COLUMNS = tuple(ColumnInfo(name, kind.value, kind) for name, kind in KINDS.items())


def member(**values: Any) -> RowImage:
    return RowImage(json.dumps({"id": 1, "user_id": 5, "team_id": 9, **values}).encode(), KINDS)


def change(old: RowImage | None, new: RowImage | None, table: str = "member") -> DatabaseEvent:
    relation = Relation("r", "public", table, COLUMNS, ("id",))
    op = "INSERT" if old is None else "DELETE" if new is None else "UPDATE"
    return DatabaseEvent(1, 1, relation, op, old, new)


def table_of(label: str) -> str:
    return label.removeprefix("app.")


def select(where: Predicate, model: str = "app.member", column: str = "team_id") -> Select:
    return Select(model, column, where)


MINE = VerdictDependencies(frozenset(of_select(select(Test("user_id", "exact", 5)), table_of)))


@pytest.mark.parametrize(
    ("old", "new", "touched"),
    [
        (None, member(), True),
        (member(), None, True),
        (None, member(user_id=6), False),
        (member(user_id=6), member(user_id=7), False),
        (member(user_id=6), member(), True),
        (member(), member(team_id=10), True),
        (member(), member(role="owner"), False),
        (member(), member(user_id=None), True),
        (None, None, True),
    ],
)
def test_a_membership_concerns_its_own_user(
    old: RowImage | None, new: RowImage | None, touched: bool
) -> None:
    assert MINE.touched_by([change(old, new)]) is touched
    assert not MINE.touched_by([change(old, new, table="other")])


def test_what_cannot_be_told_counts_as_a_change() -> None:
    unreadable = RowImage(b'{"id":1,"user_id":"x","team_id":9}', KINDS)
    assert MINE.touched_by([change(unreadable, unreadable)])


def test_a_select_within_a_select_counts_whole_tables() -> None:
    inner = select(Test("user_id", "exact", 5), "app.staff", "team_id")
    concern = VerdictDependencies(
        frozenset(of_select(select(Test("team_id", "in", inner)), table_of))
    )
    assert concern.tables == {"member", "staff"}
    assert concern.touched_by([change(None, member(user_id=6))])
    assert concern.touched_by([change(None, member(), "staff")])
    assert not concern.touched_by([change(None, member(user_id=6), "staff")])


def test_a_row_is_named_by_a_value_and_a_table_by_nothing() -> None:
    user = VerdictDependencies(frozenset([key_is("user", "id", 1)]))
    assert user.touched_by([change(member(), member(role="x"), "user")])
    assert not user.touched_by([change(member(id=2), member(id=2, role="x"), "user")])
    assert not user.touched_by([change(member(), member(), "user")])
    whole = VerdictDependencies(frozenset([Dependence("policy", TRUE)]))
    assert whole.touched_by([change(None, member(), "policy")])
