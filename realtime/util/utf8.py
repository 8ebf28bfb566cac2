"""Bytes of a database's text, made valid UTF-8: SQLite keeps any bytes as text."""

from __future__ import annotations

from typing import Any


def repaired(value: Any) -> bytes:
    """The bytes, with U+FFFD in place of what is not UTF-8."""
    raw = bytes(value)
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode(errors="replace").encode()
    return raw


def repaired_or_none(value: Any) -> bytes | None:
    """The same for a value that may be NULL."""
    return None if value is None else repaired(value)
