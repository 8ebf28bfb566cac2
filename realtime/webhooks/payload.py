"""The body of a delivery: one change in the shape of Supabase's database webhooks.

`{"type", "table", "schema", "record", "old_record"}`: `record` is null for a DELETE, `old_record`
for an INSERT, and both for a TRUNCATE. Values stand as the stream shows them, digit for digit.
See https://supabase.com/docs/guides/database/webhooks

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

MAX_RECORD_BYTES = 1_048_576
"""Of a record as JSON, as in the stream; from a larger one large values are left out."""

_SMALL_BYTES = 64
_TOO_LARGE = "Error 413: Payload Too Large"
_encode = msgspec.json.Encoder(decimal_format="number").encode


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
    for name, row in (("record", record), ("old_record", old_record)):
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


def trial_body(schema: str, table: str) -> bytes:
    """The body of a request by which an administrator tries a webhook: it has no row."""
    return body_of("TEST", schema, table, None, None)
