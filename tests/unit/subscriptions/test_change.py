"""A change for Python code: which rows and columns, with which values."""

from __future__ import annotations

from decimal import Decimal

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import DatabaseEvent, to_event
from realtime.subscriptions.change import of_event
from realtime.wal.entry import ColumnInfo, Relation, WalRow
from tests.zoo.models import Note

COLUMNS = (
    ColumnInfo("id", "int8", Kind.INT),
    ColumnInfo("price", "numeric", Kind.DECIMAL),
    ColumnInfo("data", "jsonb", Kind.JSON),
    ColumnInfo("secret", "text", Kind.TEXT, hidden=True),
)
RELATION = Relation("r1", "public", "zoo_note", COLUMNS, ("id",))
OLD = b'{"id":7,"price":1.10,"data":{"a":1},"secret":"s"}'
NEW = b'{"id":7,"price":12345678901234567.10,"data":{"a":1.0},"secret":"t"}'


def event(op: str, old: bytes | None, new: bytes | None) -> DatabaseEvent:
    return to_event(WalRow(7, 1_763_511_760_877_001, "r1", op, old, new, "5"), RELATION)


def test_decimals_are_digit_for_digit_and_hidden_columns_are_left_out() -> None:
    change = of_event(event("INSERT", None, NEW), Note)
    assert change.new == {"id": 7, "price": Decimal("12345678901234567.10"), "data": {"a": 1.0}}
    assert isinstance(change.new["data"]["a"], float)
    assert (change.old, change.pk, change.columns) == (None, 7, ("id", "price", "data"))
    assert change.commit_timestamp == "2025-11-19T00:22:40.877001Z"


def test_what_an_update_changed_is_told_by_the_values_as_json() -> None:
    assert of_event(event("UPDATE", OLD, NEW), Note).changed == ("price", "data")
    same = OLD.replace(b'"s"', b'"t"')
    assert of_event(event("UPDATE", OLD, same), Note).changed == ()
    assert of_event(event("INSERT", None, NEW), Note).changed == ("id", "price", "data")


def test_an_old_row_that_is_not_shown_is_empty_and_tells_nothing_of_what_changed() -> None:
    change = of_event(event("UPDATE", OLD, NEW), Note, show_old=False)
    assert change.old == {}
    assert change.changed == change.columns


def test_a_row_that_leaves_a_live_set_is_shown_by_its_key() -> None:
    change = of_event(event("UPDATE", OLD, NEW), Note, ("data",), op="DELETE")
    assert (change.type, change.old, change.new) == ("DELETE", {"id": 7}, None)
    assert change.columns == ("id", "data")


def test_who_wrote_is_told_only_where_it_is_given() -> None:
    found = event("INSERT", None, NEW)
    assert found.actor == "5"
    assert of_event(found, Note).actor is None
    assert of_event(found, Note, actor=found.actor).actor == "5"
