"""A relation is narrowed to what is shown now: never more, and never more than at capture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from realtime.wal.entry import NOTHING_SHOWN, ColumnInfo, Relation, Shown, narrowed

NAMES = ("id", "title", "price", "secret")


def relation(hidden: set[str], published: bool = True, key: tuple[str, ...] = ("id",)) -> Relation:
    columns = tuple(ColumnInfo(name, "text", Kind.TEXT, name in hidden) for name in NAMES)
    return Relation("r", "public", "goods", columns, key, published)


names = st.sets(st.sampled_from((*NAMES, "new")))


@given(hidden=names, shown=names)
def test_what_was_hidden_or_is_not_shown_now_is_hidden(hidden: set[str], shown: set[str]) -> None:
    found = narrowed(relation(hidden), Shown(shown, ("id",)))
    assert {column.name for column in found.visible} == (set(NAMES) - hidden) & shown
    assert [column.name for column in found.columns] == list(NAMES)
    assert (found.id, found.published) == ("r", bool(shown))


@given(hidden=names)
def test_where_all_is_shown_the_relation_is_the_same(hidden: set[str]) -> None:
    made = relation(hidden)
    assert narrowed(made, Shown(NAMES, ("id",))) is made


def test_of_a_table_that_is_not_published_nothing_is_shown() -> None:
    found = narrowed(relation(set()), NOTHING_SHOWN)
    assert not found.published and found.visible == ()


def test_a_key_that_is_not_shown_now_is_none() -> None:
    found = narrowed(relation(set(), key=("title",)), Shown(NAMES, ("id",)))
    assert found.published and found.key == ()


def test_what_was_captured_for_policies_alone_stays_as_it_is() -> None:
    made = relation(set(NAMES), published=False)
    assert narrowed(made, Shown(NAMES, ("id",))) is made
