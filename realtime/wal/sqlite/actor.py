"""Hands the actor to the triggers on SQLite, and an id of the transaction: they call a function
that returns it.

A trigger that calls a missing function would fail the writes of every other program. So the
triggers call a function that every SQLite has: char(), with a number of arguments that we redefine.
In other programs it returns a text of private code points, which the triggers take for no answer.

SQLite has no ids of transactions. Ours are random, so they are unique in every copy of the log.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from realtime.wal.actor_capture import WRITES, ActorWrapper, Execute, verb_of
from realtime.wal.sqlite import triggers
from realtime.wal.vendor import Query

logger = logging.getLogger("realtime.wal.actors")

_ID_BITS = 62


class SqliteActorWrapper(ActorWrapper):
    """Gives the actor to the function while a statement runs."""

    _now: str | None = None
    # Of the present transaction; None until it is asked for.
    _transaction: int | None = None

    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        raw = self.connection.connection
        if raw is None or not raw.in_transaction:
            self._transaction = None
            self.begin()
        verb = verb_of(sql)
        if verb not in WRITES:
            if verb == "ROLLBACK":
                self.recorded.clear()
            return execute(sql, params, many, context)
        actor = self.actor()
        self.announce(actor)
        before, self._now = self._now, actor
        try:
            return execute(sql, params, many, context)
        finally:
            self._now = before

    def connected(self) -> None:
        self._transaction = None
        self.begin()
        raw = self.connection.connection
        if not raw.execute("PRAGMA trusted_schema").fetchone()[0]:
            # In this mode a trigger that calls our function would be an error, so it is not
            # defined.
            logger.warning(
                "PRAGMA trusted_schema is off, so no actor is recorded",
                extra={"action": "actor_off"},
            )
            return
        for codes in (triggers.ACTOR_CODES, triggers.TRANSACTION_CODES):
            raw.create_function(triggers.ANSWERED_FUNCTION, len(codes), self._answer)

    def transaction_id(self) -> Query:
        return "%s", [self._id()]

    def _id(self) -> int:
        if self._transaction is None:
            self._transaction = secrets.randbits(_ID_BITS)
        return self._transaction

    def _answer(self, *codes: int) -> str | int | None:
        if codes == triggers.ACTOR_CODES:
            return self._now
        if codes == triggers.TRANSACTION_CODES:
            return self._id()
        # Another trigger or query calls char() with as many characters.
        return "".join(map(_character, codes))


def _character(code: Any) -> str:
    known = isinstance(code, int) and (0 <= code < 0xD800 or 0xE000 <= code < 0x110000)
    return chr(code) if known else "\ufffd"
