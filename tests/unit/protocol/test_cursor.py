"""Cursors: where a client wants to go on from, in each of the forms it may come in."""

from __future__ import annotations

import pytest

from realtime.protocol.cursor import Cursor, parse_cursor
from realtime.protocol.join import parse_join


@pytest.mark.parametrize(
    "sent, meant",
    [
        (None, None),
        (0, Cursor(seq=0)),
        (47, Cursor(seq=47)),
        ("47", Cursor(seq=47)),
        ("e1:47", Cursor(seq=47, epoch="e1")),
        ("6c84fb90-12c4:47", Cursor(seq=47, epoch="6c84fb90-12c4")),
        ("1970-01-01T00:00:01.5Z", Cursor(commit_us=1_500_000)),
        ("1970-01-01T00:00:01.000001+00:00", Cursor(commit_us=1_000_001)),
        ("1970-01-01 01:00:00+01:00", Cursor(commit_us=0)),
        ("1970-01-01T00:00:01", Cursor(commit_us=1_000_000)),
        ("9999-12-31T23:59:59.999999Z", Cursor(commit_us=253_402_300_799_999_999)),
        (-1, Cursor()),
        (2**63, Cursor()),
        ("9" * 19, Cursor()),
        (1.5, Cursor()),
        (True, Cursor()),
        ("", Cursor()),
        ("yesterday", Cursor()),
        ("2025-13-01T00:00:00Z", Cursor()),
        ("a:b:3", Cursor()),
        ({}, Cursor()),
    ],
)
def test_a_cursor_is_read_in_every_form_and_an_unreadable_one_is_kept_as_such(sent, meant) -> None:
    assert parse_cursor(sent) == meant
    join = parse_join({"config": {"postgres_changes": [{"table": "t", "since": sent}]}})
    assert join.bindings[0].since == meant
