"""The data object of a change: which columns, which images, digit for digit."""

from __future__ import annotations

import json

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import DatabaseEvent, RowImage, to_event
from realtime.subscriptions import change_payload
from realtime.wal.entry import ColumnInfo, Relation, WalRow

COLUMNS = (
    ColumnInfo("id", "int8", Kind.INT),
    ColumnInfo("price", "numeric", Kind.DECIMAL),
    ColumnInfo("title", "text", Kind.TEXT),
    ColumnInfo("secret", "text", Kind.TEXT, hidden=True),
)
RELATION = Relation("r1", "public", "goods", COLUMNS, ("id",))
OPEN = Relation("r2", "public", "goods", COLUMNS[:3], ("id",))
NEW = b'{"id":9007199254740993,"price":1.10,"title":"a","secret":"s"}'


def made(
    op: str, old: bytes | None, new: bytes | None, relation: Relation = RELATION
) -> DatabaseEvent:
    return to_event(WalRow(7, 1_763_511_760_877_001, relation.id, op, old, new), relation)


def test_an_insert_has_a_record_and_no_old_record() -> None:
    data = json.loads(change_payload.data(made("INSERT", None, NEW), None, False))
    assert data == {
        "schema": "public",
        "table": "goods",
        "type": "INSERT",
        "commit_timestamp": "2025-11-19T00:22:40.877001Z",
        "columns": [
            {"name": "id", "type": "int8"},
            {"name": "price", "type": "numeric"},
            {"name": "title", "type": "text"},
        ],
        "record": {"id": 9007199254740993, "price": 1.1, "title": "a"},
        "errors": None,
        "seq": 7,
    }


def test_numbers_reach_the_wire_digit_for_digit() -> None:
    for relation in (RELATION, OPEN):
        text = change_payload.data(made("INSERT", None, NEW, relation), None, False)
        assert b'"id":9007199254740993,"price":1.10,' in text


def test_a_delete_has_an_old_record_and_no_record() -> None:
    data = json.loads(change_payload.data(made("DELETE", NEW, None), None, True))
    assert "record" not in data
    assert data["old_record"] == {"id": 9007199254740993, "price": 1.1, "title": "a"}


def test_an_update_out_of_an_unseen_row_shows_nothing_of_it() -> None:
    data = json.loads(change_payload.data(made("UPDATE", NEW, NEW), None, False))
    assert data["old_record"] == {}
    assert data["record"]["title"] == "a"


def test_hidden_columns_appear_nowhere() -> None:
    for select in (None, ("secret",), ("secret", "title")):
        text = change_payload.data(made("UPDATE", NEW, NEW), select, True)
        assert b"secret" not in text
        assert b'"s"' not in text


def test_a_select_shows_its_columns_and_the_key_in_table_order() -> None:
    data = json.loads(change_payload.data(made("UPDATE", NEW, NEW), ("title",), True))
    assert [column["name"] for column in data["columns"]] == ["id", "title"]
    assert list(data["record"]) == list(data["old_record"]) == ["id", "title"]


def test_a_record_that_is_too_large_keeps_its_small_fields_and_says_so() -> None:
    large = json.dumps(
        {"id": 1, "price": 2, "title": "x" * change_payload.MAX_RECORD_BYTES}
    ).encode()
    data = json.loads(change_payload.data(made("INSERT", None, large, OPEN), None, False))
    assert data["record"] == {"id": 1, "price": 2}
    assert data["errors"] == ["Error 413: Payload Too Large"]


def test_commit_timestamps_sort_as_text_as_they_sort_in_time() -> None:
    stamps = [
        DatabaseEvent(1, us, OPEN, "INSERT", None, None).commit_timestamp
        for us in (999_999, 1_000_000, 1_000_001, 1_763_511_760_877_000, 1_763_511_760_877_001)
    ]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == len(stamps)


def test_the_same_entry_gives_equal_events() -> None:
    assert made("UPDATE", NEW, NEW) == made("UPDATE", NEW, NEW)


def test_a_value_that_is_none_of_its_kind_is_left_out_of_the_comparable_values() -> None:
    image = RowImage(b'{"id":"abc","title":"x"}', {"id": Kind.INT, "title": Kind.TEXT})
    assert dict(image) == {"title": "x"}
    assert image.json() == b'{"id":"abc","title":"x"}'


def test_an_update_that_brings_a_row_into_view_is_an_insert_that_shows_nothing_of_before() -> None:
    data = json.loads(change_payload.data(made("UPDATE", NEW, NEW), None, False, op="INSERT"))
    assert data["type"] == "INSERT"
    assert data["record"]["title"] == "a"
    assert "old_record" not in data


def test_an_update_that_takes_a_row_out_of_view_is_a_delete_of_its_key_alone() -> None:
    for select in (None, ("title",)):
        data = json.loads(change_payload.data(made("UPDATE", NEW, NEW), select, True, op="DELETE"))
        assert data["type"] == "DELETE"
        assert data["old_record"] == {"id": 9007199254740993}
        assert "record" not in data


def test_a_row_of_a_snapshot_says_that_it_is_one_and_no_change_does() -> None:
    event = made("INSERT", None, NEW)
    assert json.loads(change_payload.data(event, None, False, snapshot=True))["snapshot"] is True
    assert "snapshot" not in json.loads(change_payload.data(event, None, False))
    assert change_payload.data(event, None, False)[:-1] in change_payload.data(
        event, None, False, snapshot=True
    )


def test_a_row_has_another_key_when_any_part_of_it_differs() -> None:
    pair = Relation("r3", "public", "goods", COLUMNS[:3], ("id", "title"))
    other = NEW.replace(b'"a"', b'"b"')
    assert not change_payload.renamed(made("UPDATE", NEW, other, OPEN))
    assert change_payload.renamed(made("UPDATE", NEW, other, pair))
    assert not change_payload.renamed(made("INSERT", None, NEW, pair))
