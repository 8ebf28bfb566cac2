"""Rowcast: committed row changes, sent live to those who may see them.

The public names are imported on first use, because an app package is imported before its models
may be.
"""

from __future__ import annotations

from auth_rls.lazy_names import lazy_names

__version__ = "0.2.0"

_EXPORTS = {
    "abroadcast": "realtime.api",
    "apresence": "realtime.api",
    "broadcast": "realtime.api",
    "actor": "realtime.wal.actor",
    "as_of": "realtime.row_history.past",
    "head": "realtime.api",
    "history": "realtime.row_history.changes",
    "presence": "realtime.api",
    "publish": "realtime.wal.published",
}

__all__ = [
    "abroadcast",
    "actor",
    "apresence",
    "as_of",
    "broadcast",
    "head",
    "history",
    "presence",
    "publish",
]

__getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
