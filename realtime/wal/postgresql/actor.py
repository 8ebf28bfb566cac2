"""Hands the actor to the triggers on PostgreSQL: a setting of the transaction, which they read.

It ends with the transaction, so neither a pool nor a rollback can leave it behind for another
writer.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from realtime.wal.actor_capture import CALLS, WRITES, ActorWrapper, Execute, verb_of
from realtime.wal.postgresql import triggers
from realtime.wal.vendor import Query

# libpq's PQTRANS_IDLE and PQTRANS_INERROR.
_IDLE, _FAILED = 0, 3


class PostgresqlActorWrapper(ActorWrapper):
    """Sets the actor of a transaction before its first write."""

    # The actor that this transaction's setting has; None when that is not known.
    _set: str | None = ""

    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if (self._set != "" or self.users or self.on_user) and self._status() == _IDLE:
            # A transaction begins, with whatever statement: it has no setting yet.
            self._set = ""
            self.begin()
        verb = verb_of(sql.as_string(None) if hasattr(sql, "as_string") else sql)
        if verb == "ROLLBACK":
            self._set = None
            self.recorded.clear()
        alone = self.connection.get_autocommit()
        if verb not in WRITES and (alone or verb not in CALLS):
            return execute(sql, params, many, context)
        if self._status() == _FAILED:
            return execute(sql, params, many, context)
        actor = self.actor() or ""
        self.announce(actor)
        if actor == self._set:
            return execute(sql, params, many, context)
        if alone:
            # Without a transaction the setting would end with its own statement.
            with transaction.atomic(using=self.connection.alias):
                self._hand_over(actor)
                return execute(sql, params, many, context)
        self._hand_over(actor)
        return execute(sql, params, many, context)

    def connected(self) -> None:
        self._set = ""
        self.begin()

    def transaction_id(self) -> Query:
        return f"({triggers.TXID})", []

    def _status(self) -> int:
        raw = self.connection.connection
        # The statement itself makes a missing connection.
        return _IDLE if raw is None else int(raw.info.transaction_status)

    def _hand_over(self, actor: str) -> None:
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute("SELECT set_config(%s, %s, true)", [triggers.ACTOR_SETTING, str(actor)])
        self._set = actor
