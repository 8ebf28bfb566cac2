"""Published models whose changes can never be captured: kept in another database, or in what has no
triggers. Joins to their tables are refused with the reason, and checks name them.

What the database has is looked at now and then and remembered for the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal import published
from realtime.wal.published import Published
from realtime.wal.vendor import supports, vendor_of

ABSENT = "the table does not exist"

# After so long the database is looked at again; each time while something is wrong.
_LOOK_SECONDS = 60.0

_lock = threading.Lock()
_known: Mapping[str, str] = {}
_looked: tuple[frozenset[str], float] | None = None


def find(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Why nothing can come of published tables, by `db_table`. The texts name no database and no
    model. In a database thread; raises what the database raises."""
    entries = published.published()
    tables = {entry.model._meta.db_table for entry in entries}
    kinds = vendor_of(connection).catalog(connection).kinds(tables)
    found = {}
    for entry in entries:
        reason = _reason(entry, connection.alias, kinds)
        if reason is not None:
            found[entry.model._meta.db_table] = reason
    return found


def refresh(alias: str) -> None:
    """Look at the database, unless that was done a moment ago. A database that does not answer
    changes nothing. In a database thread."""
    global _known, _looked
    if not supports(connections[alias]):
        return
    now = time.monotonic()
    tables = frozenset(published.declarations)
    with _lock:
        if _looked is not None and not _known:
            before, at = _looked
            if before == tables and now - at < _LOOK_SECONDS:
                return
        _looked = tables, now
    try:
        _known = find(connections[alias])
    except DatabaseError:
        return


def of(entry: Published) -> str | None:
    """Why nothing can come of this model, as far as is known; None where nothing is wrong."""
    return _known.get(entry.model._meta.db_table)


def _reason(entry: Published, alias: str, kinds: Mapping[str, str]) -> str | None:
    if routed_elsewhere(entry, alias):
        return "its rows are kept in another database than the log"
    kind = kinds.get(entry.model._meta.db_table)
    if kind is None:
        return ABSENT
    return None if kind == "table" else f"it is a {kind}, whose changes cannot be captured"


def routed_elsewhere(entry: Published, alias: str) -> bool:
    """Whether a router sends writes of the model to another database. Models that no router speaks
    of are taken to be where the log is."""
    for one in router.routers:
        method = getattr(one, "db_for_write", None)
        chosen = None if method is None else method(entry.model)
        if chosen:
            return bool(chosen != alias)
    return False
