"""The history of rows: what changed in them, as they were at an earlier position, and back to it.

A history is read from the log, and for models that ask for it (`@publish(history=...)`) from a
table of its own, into which entries are copied before the log is pruned. It shows what the stream
shows: published columns alone, judged by the policies. It is no proof: those who may write to the
database can also write to the log.
"""

from __future__ import annotations

from auth_rls.lazy_names import lazy_names

_EXPORTS = {
    "CannotRevert": "realtime.row_history.errors",
    "HistoryLost": "realtime.row_history.errors",
    "RowHistory": "realtime.row_history.changes",
    "diff": "realtime.row_history.restoring",
    "revert": "realtime.row_history.restoring",
}

__all__ = ["CannotRevert", "HistoryLost", "RowHistory", "diff", "revert"]

__getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
