"""Tokens that are refused before they expire, by the project's own list.

Owns the calls of the project's function, which decides where the list is kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

logger = logging.getLogger("auth_rls.denylist")

Check = Callable[[Sequence[Mapping[str, Any]]], Iterable[bool]]
_Check = TypeVar("_Check", bound=Check)

_checks: list[Check] = []


def token_denylist(check: _Check) -> _Check:
    """Register a function that decides which tokens are refused; usable as a decorator.

    It is called with the claims of one or more tokens, whose signature and expiry are valid, and
    returns as many booleans, true for a token that is refused. It is called for new tokens, many at
    once when many come, and every second for the tokens of the open sockets of a server process,
    so it should decide about many by one query. If it raises, returns fewer booleans, or has not
    returned after five seconds, all the tokens are refused, and sockets that came with them end.
    """
    if check not in _checks:
        _checks.append(check)
    return check


def forget(check: Check) -> None:
    """Call a registered function no more."""
    _checks.remove(check)


def in_use() -> bool:
    """Whether a function is registered."""
    return bool(_checks)


def denied(tokens: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each token, whether it is refused."""
    refused = [False] * len(tokens)
    for check in _checks:
        try:
            answers = list(check(tokens))
        except Exception as error:
            _outage.failed(f"{type(error).__name__}: {error}", error)
            return [True] * len(tokens)
        if len(answers) != len(tokens):
            _outage.failed(f"it answered {len(answers)} times for {len(tokens)} tokens")
            return [True] * len(tokens)
        refused = [before or bool(now) for before, now in zip(refused, answers, strict=True)]
    _outage.worked()
    return refused


def unanswered(seconds: float) -> None:
    """Log that a function has not answered for so long, so that tokens are refused."""
    _outage.failed(f"it has not answered for {seconds:g} seconds")


class _Outage:
    """Logs one line when the functions begin to fail, and one when they work again. For several
    threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasts = False

    def failed(self, why: str, error: Exception | None = None) -> None:
        with self._lock:
            known, self._lasts = self._lasts, True
        if not known:
            logger.error(
                "the token denylist failed, and all tokens are refused: %s",
                why,
                exc_info=error,
                extra={"action": "denylist_failed"},
            )

    def worked(self) -> None:
        with self._lock:
            known, self._lasts = self._lasts, False
        if known:
            logger.info("the token denylist works again", extra={"action": "denylist_works"})


_outage = _Outage()
