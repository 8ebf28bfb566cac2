"""The primary key of a table, as a client is told of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableKey:
    """`columns` are in the order of the key. This is how it is written on the wire."""

    schema: str
    table: str
    columns: tuple[str, ...]
