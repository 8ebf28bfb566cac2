"""Hands the actor to the triggers on SQLite: they call a function that returns it.

A trigger that calls a missing function would fail the writes of every other program. So the
triggers call a function that every SQLite has: char(), with a number of arguments that we redefine.
In other programs it returns a text of private code points, which the triggers take for no actor.
"""

from __future__ import annotations

import logging
from typing import Any

from realtime.wal.actor_capture import WRITES, ActorWrapper, Execute, verb_of
from realtime.wal.sqlite import triggers

logger = logging.getLogger("realtime.wal.actors")


class SqliteActorWrapper(ActorWrapper):
    """Gives the actor to the function while a statement runs."""

    _now: str | None = None

    def __call__(self, execute: Execute, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if verb_of(sql) not in WRITES:
            return execute(sql, params, many, context)
        before, self._now = self._now, self.actor()
        try:
            return execute(sql, params, many, context)
        finally:
            self._now = before

    def connected(self) -> None:
        raw = self.connection.connection
        if not raw.execute("PRAGMA trusted_schema").fetchone()[0]:
            # In this mode a trigger that calls our function would be an error, so it is not
            # defined.
            logger.warning(
                "PRAGMA trusted_schema is off, so no actor is recorded",
                extra={"action": "actor_off"},
            )
            return
        raw.create_function(triggers.ACTOR_FUNCTION, len(triggers.ACTOR_CODES), self._answer)

    def _answer(self, *codes: int) -> str | None:
        if codes == triggers.ACTOR_CODES:
            return self._now
        # Another trigger or query calls char() with as many characters.
        return "".join(map(_character, codes))


def _character(code: Any) -> str:
    known = isinstance(code, int) and (0 <= code < 0xD800 or 0xE000 <= code < 0x110000)
    return chr(code) if known else "\ufffd"
