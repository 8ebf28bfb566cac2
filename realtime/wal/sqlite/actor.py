"""Hands the actor to the triggers on SQLite: a function that they call answers it.

A trigger that calls a missing function fails the writes of every program that is not ours. So it is
a function that every SQLite has: char(), in a number of arguments that only we define. Without us
it answers a text of private code points, which the triggers take for no actor.
"""

from __future__ import annotations

import logging
from typing import Any

from realtime.wal.actor_capture import WRITES, ActorWrapper, Execute, verb_of
from realtime.wal.sqlite import triggers

logger = logging.getLogger("realtime.wal.actors")


class SqliteActorWrapper(ActorWrapper):
    """Answers the triggers' call of the function for as long as a statement runs."""

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
            # Then a function of ours in a trigger is an error, so none is made.
            logger.warning(
                "PRAGMA trusted_schema is off, so no actor is recorded",
                extra={"action": "actor_off"},
            )
            return
        raw.create_function(triggers.ACTOR_FUNCTION, len(triggers.ACTOR_CODES), self._answer)

    def _answer(self, *codes: int) -> str | None:
        if codes == triggers.ACTOR_CODES:
            return self._now
        # A char() of other triggers or queries, with as many characters.
        return "".join(map(_character, codes))


def _character(code: Any) -> str:
    known = isinstance(code, int) and (0 <= code < 0xD800 or 0xE000 <= code < 0x110000)
    return chr(code) if known else "\ufffd"
