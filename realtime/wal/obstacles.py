"""Published models whose changes can never be captured, because they are in another database, or
are a view or foreign table, and those that lost their triggers. Joins to their tables are refused
with the reason, and checks name them. So are all joins where accounts or policies are in another
database than the log.

The database is looked at now and then, and the result is kept for the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from auth_rls import forks
from auth_rls.sql.primary import primary
from realtime.wal import published
from realtime.wal.catalog import AMBIGUOUS
from realtime.wal.published import Published
from realtime.wal.vendor import supports, vendor_of

ABSENT = "the table does not exist"
UNCAPTURED = "its triggers are missing, so its changes are not captured"
APART = (
    "accounts or policies are kept in another database than the log, so no policy can be trusted"
)

# After so many seconds the database is looked at again; while something is wrong, at every call.
_LOOK_SECONDS = 60.0

_lock = threading.Lock()
_known: Mapping[str, str] = {}
_uncaptured: frozenset[str] = frozenset()
_looked: tuple[frozenset[str], float] | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


forks.in_child(_renew_lock)


def find(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """For published tables that cannot be captured, the reason, by `db_table`. The texts name no
    database and no model. In a database thread; raises what the database raises."""
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
    """Look at the database, unless that was done a moment ago. If the database does not answer, the
    last result stays. In a database thread."""
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


def look(alias: str, uncaptured: Collection[str] = ()) -> Mapping[str, str]:
    """Look at the database now. `uncaptured` are the tables (by `db_table`) that have lost their
    triggers. Returns for each table of which nothing can come the reason. In a database thread;
    raises what the database raises."""
    global _known, _uncaptured
    _known, _uncaptured = find(connections[alias]), frozenset(uncaptured)
    return dict.fromkeys(_uncaptured, UNCAPTURED) | _known


def of(entry: Published) -> str | None:
    """Why changes of this model cannot be captured, by the last result; None if they can."""
    table = entry.model._meta.db_table
    return _known.get(table, UNCAPTURED if table in _uncaptured else None)


def deciding_elsewhere(alias: str) -> dict[type[Model], str]:
    """The models that say who may see what and that are written to another database than the
    log's, with its alias: their changes are not followed."""
    deciding: list[type[Model]] = [
        apps.get_model("auth_rls", "Policy"),
        get_user_model(),
        Group,
        Permission,
        ContentType,
    ]
    return {model: home for model in deciding if (home := primary(model)) != alias}


def _reason(entry: Published, alias: str, kinds: Mapping[str, str]) -> str | None:
    if routed_elsewhere(entry, alias):
        return "its rows are kept in another database than the log"
    kind = kinds.get(entry.model._meta.db_table)
    if kind is None:
        return ABSENT
    if kind == AMBIGUOUS:
        return "tables of this name are in several schemas, which are not told apart"
    return None if kind == "table" else f"it is a {kind}, whose changes cannot be captured"


def routed_elsewhere(entry: Published, alias: str) -> bool:
    """Whether a router sends writes of the model to another database. Without a router's word the
    model is taken to be in the database of the log."""
    for one in router.routers:
        method = getattr(one, "db_for_write", None)
        chosen = None if method is None else method(entry.model)
        if chosen:
            return bool(chosen != alias)
    return False
