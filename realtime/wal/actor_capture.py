"""Hands the actor to the capture triggers, with each write and in the writer's own transaction.

On PostgreSQL it is a setting of the transaction, which the trigger function reads: it ends with
the transaction, so neither a pool nor a rollback can leave it behind for somebody else.

On SQLite it is what a function answers, and a trigger that calls a missing function would fail the
writes of every program that is not ours. So it is a function that every SQLite has: char(), in a
number of arguments that only we define. Without us it answers a text of private code points, which
the triggers take for nobody.

Owns both ends of that, and never fails a write: who cannot be told is nobody.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from realtime.conf import settings
from realtime.wal import actor as authorship
from realtime.wal.postgresql import triggers as postgresql
from realtime.wal.sqlite import triggers as sqlite

logger = logging.getLogger(__name__)

_VERB = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*([A-Z]+)", re.IGNORECASE | re.DOTALL)
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH", "TRUNCATE"})
# They may write too, and may end transactions, so none is made for them.
_CALLS = frozenset({"CALL", "DO"})
# libpq's PQTRANS_IDLE and PQTRANS_INERROR.
_IDLE, _FAILED = 0, 3

Execute = Callable[[Any, Any, bool, Any], Any]


class _ActorWrapper(ABC):
    """Around every statement of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection: Any = connection
        self._asking = False

    @abstractmethod
    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run the statement, with the actor at hand for its triggers."""

    @abstractmethod
    def connected(self) -> None:
        """The connection has just been made."""

    def actor(self) -> str | None:
        if self._asking:
            return None  # Reading who it is wrote something itself.
        self._asking = True
        try:
            return authorship.current()
        except Exception:
            logger.exception("who writes cannot be told", extra={"action": "actor_unknown"})
            return None
        finally:
            self._asking = False


class SqliteHand(_ActorWrapper):
    """Answers the triggers' question for as long as a statement runs."""

    _now: str | None = None

    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if _verb(sql) not in _WRITES:
            return execute(sql, params, many, context)
        before, self._now = self._now, self.actor()
        try:
            return execute(sql, params, many, context)
        finally:
            self._now = before

    def connected(self) -> None:
        raw = self.connection.connection
        if not raw.execute("PRAGMA trusted_schema").fetchone()[0]:
            # Then a function of ours in a trigger is an error. Nobody is recorded.
            logger.warning(
                "PRAGMA trusted_schema is off, so no actor is recorded",
                extra={"action": "actor_off"},
            )
            return
        raw.create_function(sqlite.ACTOR_FUNCTION, len(sqlite.ACTOR_CODES), self._answer)

    def _answer(self, *codes: int) -> str | None:
        if codes == sqlite.ACTOR_CODES:
            return self._now
        # Somebody else's char(), of as many characters.
        return "".join(map(_character, codes))


def _character(code: Any) -> str:
    known = isinstance(code, int) and (0 <= code < 0xD800 or 0xE000 <= code < 0x110000)
    return chr(code) if known else "\ufffd"


class PostgresqlHand(_ActorWrapper):
    """Sets the transaction's actor before a write, once for a transaction."""

    # What this transaction's setting is; None when that is not known.
    _set: str | None = ""

    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        verb = _verb(sql.as_string(None) if hasattr(sql, "as_string") else sql)
        if verb == "ROLLBACK":
            self._set = None
        alone = self.connection.get_autocommit()
        if verb not in _WRITES and (alone or verb not in _CALLS):
            return execute(sql, params, many, context)
        actor = self.actor() or ""
        status = self._status()
        if status == _IDLE:
            self._set = ""
        if actor == self._set or status == _FAILED:
            return execute(sql, params, many, context)
        if alone:
            # The statement would be a transaction of its own, at whose end the setting goes.
            with transaction.atomic(using=self.connection.alias):
                self._hand_over(actor)
                return execute(sql, params, many, context)
        self._hand_over(actor)
        return execute(sql, params, many, context)

    def connected(self) -> None:
        self._set = ""

    def _status(self) -> int:
        raw = self.connection.connection
        # Without a connection the statement makes one first.
        return _IDLE if raw is None else int(raw.info.transaction_status)

    def _hand_over(self, actor: str) -> None:
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute("SELECT set_config(%s, %s, true)", [postgresql.ACTOR_SETTING, actor])
        self._set = actor


def _verb(sql: Any) -> str:
    """The first word of a statement."""
    found = _VERB.match(sql) if isinstance(sql, str) else None
    return found[1].upper() if found else ""


_HANDS: dict[str, type[SqliteHand] | type[PostgresqlHand]] = {
    "sqlite": SqliteHand,
    "postgresql": PostgresqlHand,
}


def connect(sender: AppConfig) -> None:
    """Hand actors over on every connection to the captured database that is made from here on."""
    connection_created.connect(_connected, dispatch_uid="realtime.wal.actors")


def _connected(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if connection.alias != settings.DATABASE or connection.vendor not in _HANDS:
        return
    hand = next(
        (one for one in connection.execute_wrappers if isinstance(one, _ActorWrapper)), None
    )
    if hand is None:
        hand = _HANDS[connection.vendor](connection)
        # In front: execute_wrapper() takes its own away from the end.
        connection.execute_wrappers.insert(0, hand)
    hand.connected()
