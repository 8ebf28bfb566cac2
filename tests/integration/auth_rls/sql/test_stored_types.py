"""What is known of columns' types while they are read for the first time."""

from __future__ import annotations

from typing import Any

from django.db import connection, connections

from auth_rls.sql import stored_types
from auth_rls.sql.dialects.registry import dialect_of


def test_a_thread_that_comes_during_the_first_read_does_not_go_by_nothing(monkeypatch: Any) -> None:
    alias = "read first"
    monkeypatch.setitem(connections.settings, alias, connections.settings["default"])
    reads = []

    def read(tables: Any) -> None:
        reads.append(tables)
        if len(reads) == 1:
            stored_types.look([alias])  # as another thread would meanwhile
            assert len(reads) == 2

    monkeypatch.setattr(dialect_of(connection), "stored_types", read)
    try:
        stored_types.look([alias])
        stored_types.look([alias])
    finally:
        del connections[alias]
    assert len(reads) == 2
