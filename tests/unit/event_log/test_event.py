"""Row images: decoded when a value is read, and no further than what is read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import RowImage, to_event
from realtime.wal.entry import ColumnInfo, Relation, WalRow

KINDS = {"id": Kind.INT, "title": Kind.TEXT, "score": Kind.INT}
ROW: dict[str, Any] = {"score": 7, "id": 1, "title": "a"}


class AskedKinds(dict[str, Kind]):
    """Kinds of columns that record which of them were asked for."""

    def __init__(self) -> None:
        super().__init__(KINDS)
        self.asked: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.append(name)
        return super().get(name, default)


def image(kinds: dict[str, Kind] = KINDS, **values: Any) -> RowImage:
    return RowImage(json.dumps(ROW | values).encode(), kinds)


def test_an_image_that_nobody_reads_is_not_decoded() -> None:
    row = image()
    assert not row.decoded and row.json() == row.raw
    assert row["id"] == 1 and row.decoded


def test_only_the_values_that_are_read_are_made_comparable_each_once() -> None:
    kinds = AskedKinds()
    row = image(kinds)
    assert row.get("score") == 7 and row["score"] == 7
    assert kinds.asked == ["score"]
    assert dict(row) == ROW
    assert sorted(kinds.asked) == sorted(KINDS)


def test_values_keep_the_order_of_the_text_whatever_was_read_first() -> None:
    row = image()
    assert row["title"] == "a"
    assert list(row) == ["score", "id", "title"] and len(row) == 3


@pytest.mark.parametrize("whole", [False, True], ids=["one by one", "after all were read"])
def test_a_value_that_is_not_of_its_kind_or_not_of_the_table_is_left_out(whole: bool) -> None:
    row = image(score="word", other=1)
    if whole:
        assert dict(row) == {"id": 1, "title": "a"}
    assert row.get("score") is None and row.get("other") is None and row.get("missing", 5) == 5
    assert "score" not in row and "id" in row
    for name in ("score", "other", "missing"):
        with pytest.raises(KeyError):
            row[name]


def test_null_is_a_value() -> None:
    row = image(title=None)
    assert row.get("title", "another") is None and row["title"] is None and "title" in row


def test_an_entry_from_a_process_that_does_not_send_the_writer_is_read_as_one_without() -> None:
    relation = Relation("r", "public", "t", (ColumnInfo("id", "int8", Kind.INT),), ("id",))
    older = msgspec.msgpack.encode([7, 9, "r", "INSERT", None, b'{"id":1}'])
    newer = msgspec.msgpack.encode([7, 9, "r", "INSERT", None, b'{"id":1}', "5", None, "more"])
    found = [msgspec.msgpack.decode(sent, type=WalRow) for sent in (older, newer)]
    assert [to_event(row, relation).actor for row in found] == [None, "5"]


@pytest.mark.parametrize(
    ("actor", "tx", "asked", "shown"),
    [
        ("5", "receipt", "5", "receipt"),
        ("5", "receipt", "6", None),
        ("5", "receipt", None, None),
        (None, "receipt", None, None),
        ("5", None, "5", None),
    ],
)
def test_the_receipt_is_told_to_the_writer_alone(
    actor: str | None, tx: str | None, asked: str | None, shown: str | None
) -> None:
    relation = Relation("r", "public", "t", (ColumnInfo("id", "int8", Kind.INT),), ("id",))
    row = WalRow(7, 9, "r", "INSERT", None, b'{"id":1}', actor, tx)
    assert to_event(row, relation).tx_of(asked) == shown
