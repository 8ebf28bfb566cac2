"""What a handler is: which changes it gets, the code that gets them, and what becomes of failures.

A value. The decorator makes them of functions, and other packages may make them of anything, such
as rows of a table; the runner compares them to notice that one has changed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured
from django.db import models

from realtime.handling.handled_change import HandledChange

EVENTS = ("INSERT", "UPDATE", "DELETE")
# Only for those that name it: a table that was emptied at once has no rows to give.
EMPTIED = "TRUNCATE"

STOP = "stop"
DEAD_LETTER = "dead_letter"
HEAD = "head"
BEGINNING = "beginning"

# It is part of actors and of lines in logs.
_NAME = re.compile(r"[\w.:-]{1,200}")
MOST_BATCH = 10_000
MOST_CONCURRENCY = 64
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0
_JITTER = 0.5
# Code that ends by itself is given up if it does not.
_GRACE_SECONDS = 5.0

Call = Callable[[Sequence[HandledChange]], None]
"""Code that gets some changes, in order, in a thread with a transaction on the log's database. What
it raises is a failed attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerDefinition:
    """One handler. The arguments are those of `realtime.on_change`.

    `models` are the published models whose changes it gets, by one filter. `columns` and `key` are
    names of columns or fields. `pauses` are the seconds before the second attempt, the third and so
    on; none: they grow from one second to five minutes. With `in_transaction` False the code runs
    before the transaction that moves the cursor begins: for code that only has effects outside of
    the database and may take long. `time_limit_inside`: the code ends by itself after `timeout`.
    """

    name: str
    models: tuple[type[models.Model], ...]
    call: Call
    events: tuple[str, ...] = EVENTS
    columns: tuple[str, ...] | None = None
    filter: str = ""
    batch: int = 1
    key: str | None = None
    concurrency: int = 1
    on_failure: str = STOP
    attempts: int = 5
    pauses: tuple[float, ...] = ()
    start: str = HEAD
    timeout: float = 60.0
    in_transaction: bool = True
    time_limit_inside: bool = False

    def __post_init__(self) -> None:
        """Raises ImproperlyConfigured for a value that cannot be, whatever the models are."""
        self._need(
            isinstance(self.name, str) and _NAME.fullmatch(self.name) is not None,
            "name",
            "1 to 200 letters, digits, dots, colons, hyphens and underscores",
        )
        self._need(
            bool(self.models)
            and all(
                isinstance(model, type) and issubclass(model, models.Model) for model in self.models
            ),
            "model",
            "a model class",
        )
        self._need(callable(self.call), "function", "a function of a change")
        known = (*EVENTS, EMPTIED)
        self._need(
            bool(self.events)
            and isinstance(self.events, tuple)
            and all(event in known for event in self.events),
            "events",
            f"a list of {', '.join(map(repr, known))}",
        )
        self._need(
            self.columns is None
            or (isinstance(self.columns, tuple) and bool(self.columns) and _texts(self.columns)),
            "columns",
            "a list of names of columns, or nothing",
        )
        self._need(isinstance(self.filter, str), "filter", "a text such as 'status=eq.paid'")
        self._need(_whole(self.batch, MOST_BATCH), "batch", f"a whole number up to {MOST_BATCH}")
        self._need(
            self.key is None or isinstance(self.key, str), "key", "the name of a column, or nothing"
        )
        self._need(
            _whole(self.concurrency, MOST_CONCURRENCY),
            "concurrency",
            f"a whole number up to {MOST_CONCURRENCY}",
        )
        self._need(
            self.concurrency == 1 or self.key is not None,
            "concurrency",
            "1 without a key=..., by which order is kept",
        )
        self._need(
            self.on_failure in (STOP, DEAD_LETTER), "on_failure", f"{STOP!r} or {DEAD_LETTER!r}"
        )
        self._need(_whole(self.attempts, 1_000), "attempts", "a whole number from 1 on")
        self._need(self.start in (HEAD, BEGINNING), "start", f"{HEAD!r} or {BEGINNING!r}")
        self._need(
            isinstance(self.timeout, int | float)
            and not isinstance(self.timeout, bool)
            and self.timeout > 0,
            "timeout",
            "a positive number of seconds",
        )

    def _need(self, right: bool, argument: str, what: str) -> None:
        if not right:
            given = {"model": "models", "function": "call"}.get(argument, argument)
            raise ImproperlyConfigured(
                f"on_change: {argument} of the handler {self.name!r} must be {what}, "
                f"not {getattr(self, given)!r}."
            )

    @property
    def most_seconds(self) -> float:
        """After so long an attempt is given up from outside."""
        return self.timeout + (_GRACE_SECONDS if self.time_limit_inside else 0.0)

    def pause(self, attempts: int) -> float:
        """Seconds to wait after so many failed attempts, with some jitter."""
        if self.pauses:
            pause = self.pauses[min(attempts, len(self.pauses)) - 1]
        else:
            pause = min(_FIRST_PAUSE * 2.0 ** min(attempts - 1, 30), _LONGEST_PAUSE)
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)


def _texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
