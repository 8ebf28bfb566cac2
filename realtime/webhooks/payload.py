"""The body of a delivery: one change in the shape of Supabase's database webhooks.

`{"type", "table", "schema", "record", "old_record"}`: `record` is null for a DELETE, `old_record`
for an INSERT, and both for a TRUNCATE. Values stand as the stream shows them, digit for digit.
See https://supabase.com/docs/guides/database/webhooks

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

MAX_RECORD_BYTES = 1_048_576
"""Of a record as JSON, as in the stream; from a larger one large values are left out."""

_SMALL_BYTES = 64
_TABLE = ("schema", "table")
_ROWS = ("record", "old_record")
_NULL = msgspec.Raw(b"null")
_TOO_LARGE = "Error 413: Payload Too Large"
_encode = msgspec.json.Encoder(decimal_format="number").encode
_Row = dict[str, msgspec.Raw]
_decode_members = msgspec.json.Decoder(_Row).decode
_decode_row = msgspec.json.Decoder(_Row | None).decode


def body_of(
    type: str,
    schema: str,
    table: str,
    record: Mapping[str, Any] | None,
    old_record: Mapping[str, Any] | None,
    columns: Collection[str] | None = None,
) -> bytes:
    """The body as JSON, with these columns of both rows; None: all that are given.

    A record over MAX_RECORD_BYTES keeps its small values alone, and a member `errors` says so, as
    in the stream.
    """
    body: dict[str, object] = {"type": type, "table": table, "schema": schema}
    large = False
    for name, row in zip(_ROWS, (record, old_record), strict=True):
        if row is not None and columns is not None:
            row = {column: row[column] for column in row if column in columns}
        image = _encode(row)
        if row is not None and len(image) > MAX_RECORD_BYTES:
            large = True
            cells = {column: msgspec.Raw(_encode(value)) for column, value in row.items()}
            image = _encode({k: cell for k, cell in cells.items() if len(cell) <= _SMALL_BYTES})
        body[name] = msgspec.Raw(image)
    if large:
        body["errors"] = [_TOO_LARGE]
    return _encode(body)


def narrowed(body: bytes, shown: Callable[[str, str], Collection[str]]) -> tuple[bytes, list[str]]:
    """The body with the columns of both rows that are `shown` of a schema and a table alone, and
    the names of the others. The same bytes if there are none."""
    members = _decode_members(body)
    rows = {name: row for name in _ROWS if (row := _decode_row(members.get(name, _NULL)))}
    if not rows:
        return body, []
    columns = shown(*(msgspec.json.decode(members[name], type=str) for name in _TABLE))
    withheld = {column for row in rows.values() for column in row if column not in columns}
    if not withheld:
        return body, []
    for name, row in rows.items():
        kept = {column: cell for column, cell in row.items() if column in columns}
        members[name] = msgspec.Raw(_encode(kept))
    return _encode(members), sorted(withheld)


def trial_body(schema: str, table: str) -> bytes:
    """The body of a request by which an administrator tries a webhook: it has no row."""
    return body_of("TEST", schema, table, None, None)
