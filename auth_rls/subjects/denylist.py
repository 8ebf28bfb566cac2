"""Tokens that are refused before they expire, by the project's own list.

Owns the calls of the project's function, which decides where the list is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

logger = logging.getLogger("auth_rls.denylist")

Check = Callable[[Sequence[Mapping[str, Any]]], Iterable[bool]]
_Check = TypeVar("_Check", bound=Check)

_checks: list[Check] = []


def token_denylist(check: _Check) -> _Check:
    """Register a function that decides which tokens are refused; usable as a decorator.

    It is called in a database thread with the claims of one or more tokens, whose signature and
    expiry are valid, and returns as many booleans, true for a token that is refused. It is called
    for each new token, and every second for the tokens of the open sockets of a server process, so
    it should decide about many by one query. If it raises, or returns fewer booleans, all the
    tokens are refused.
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
        except Exception:
            logger.exception("the token denylist failed", extra={"action": "denylist_failed"})
            answers = []
        if len(answers) != len(tokens):
            return [True] * len(tokens)
        refused = [before or bool(now) for before, now in zip(refused, answers, strict=True)]
    return refused
