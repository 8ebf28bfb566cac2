"""Makes the bytes of a database's text valid UTF-8. SQLite accepts any bytes as text."""

from __future__ import annotations

from typing import Any


def repaired(value: Any) -> bytes:
    """The bytes of a text, with U+FFFD in place of bytes that are not UTF-8."""
    raw = bytes(value)
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode(errors="replace").encode()
    return raw


def repaired_or_none(value: Any) -> bytes | None:
    """`repaired` for a value that may be NULL; NULL gives None."""
    return None if value is None else repaired(value)
