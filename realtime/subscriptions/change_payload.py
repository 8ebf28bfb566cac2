"""The `data` object of a postgres_changes frame: one change as one audience gets it.

Pure. The row's JSON text is inserted as the trigger wrote it. The shape is that of the Supabase
Realtime protocol: https://supabase.com/docs/guides/realtime/protocol
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.wal.entry import Relation

MAX_RECORD_BYTES = 1_048_576
_SMALL_FIELD_BYTES = 64
_TOO_LARGE = "Error 413: Payload Too Large"

_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@lru_cache(maxsize=1024)
def shown_columns(relation: Relation, select: tuple[str, ...] | None) -> tuple[str, ...]:
    """The columns a subscription with this `select` sees: its own and the key, in table order."""
    return tuple(
        column.name
        for column in relation.visible
        if select is None or column.name in select or column.name in relation.key
    )


@lru_cache(maxsize=1024)
def _columns_json(relation: Relation, shown: tuple[str, ...]) -> msgspec.Raw:
    types = {column.name: column.type for column in relation.columns}
    return msgspec.Raw(_encode([{"name": name, "type": types[name]} for name in shown]))


def _image(row: RowImage, relation: Relation, shown: tuple[str, ...]) -> bytes:
    return row.json(None if len(shown) == len(relation.columns) else shown)


def _shrink(image: bytes) -> bytes:
    cells = _decode_raw(image)
    return _encode(
        {name: cell for name, cell in cells.items() if len(bytes(cell)) <= _SMALL_FIELD_BYTES}
    )


def unchanged(event: DatabaseEvent) -> bool:
    """Whether an UPDATE changed hidden columns alone, so that no subscriber may notice it."""
    relation = event.relation
    if event.op != "UPDATE" or event.old is None or event.new is None:
        return False
    shown = shown_columns(relation, None)
    if len(shown) == len(relation.columns):
        return False
    return event.old.json(shown) == event.new.json(shown)


def renamed(event: DatabaseEvent) -> bool:
    """Whether an UPDATE gave the row another key."""
    old, new, key = event.old, event.new, event.relation.key
    if old is None or new is None:
        return False
    if all(old.get(name) is not None and old.get(name) == new.get(name) for name in key):
        return False
    return old.json(key) != new.json(key)


def data(
    event: DatabaseEvent,
    select: tuple[str, ...] | None,
    show_old: bool,
    *,
    op: str | None = None,
    snapshot: bool = False,
    tx: str | None = None,
) -> bytes:
    """The `data` object as JSON.

    `op` is the change as the subscriber gets it: to a live set, an UPDATE may be an INSERT or a
    DELETE. `show_old`: the subscriber could see the old image. The images of the object:

    | event  | op     | record | old_record                                  |
    | ------ | ------ | ------ | ------------------------------------------- |
    | INSERT | INSERT | new    | none                                        |
    | UPDATE | UPDATE | new    | old; empty unless `show_old`                |
    | UPDATE | INSERT | new    | none                                        |
    | UPDATE | DELETE | none   | the key of old                              |
    | DELETE | DELETE | none   | old                                         |

    `snapshot` marks a row that was there before the subscription. `tx` is the receipt that the
    subscriber took of the transaction, if it did. A record over MAX_RECORD_BYTES
    keeps its small fields alone, and `errors` says so.
    """
    relation = event.relation
    shown = shown_columns(relation, select)
    op = op or event.op
    body: dict[str, object] = {
        "schema": relation.schema,
        "table": relation.table,
        "type": op,
        "commit_timestamp": event.commit_timestamp,
        "columns": _columns_json(relation, shown),
    }
    images: dict[str, bytes] = {}
    if event.new is not None and op != "DELETE":
        images["record"] = _image(event.new, relation, shown)
    if event.old is not None and op != "INSERT":
        images["old_record"] = _old_image(event, event.old, shown, op, show_old)
    errors: list[str] | None = None
    for name, image in images.items():
        if len(image) > MAX_RECORD_BYTES:
            image = _shrink(image)
            errors = [_TOO_LARGE]
        body[name] = msgspec.Raw(image)
    body["errors"] = errors
    body["seq"] = event.seq
    if snapshot:
        body["snapshot"] = True
    if tx is not None:
        body["tx"] = tx
    return _encode(body)


def _old_image(
    event: DatabaseEvent, old: RowImage, shown: tuple[str, ...], op: str, show_old: bool
) -> bytes:
    if op != event.op:
        return old.json(event.relation.key)
    if op == "UPDATE" and not show_old:
        return b"{}"
    return _image(old, event.relation, shown)
