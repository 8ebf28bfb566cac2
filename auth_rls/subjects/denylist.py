"""Tokens that are refused before they expire: the project's own list of them.

Owns asking the list. Where the list is kept is the project's to decide.
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
    """Register a function that says which tokens are refused; usable as a decorator.

    It is called in a database thread with the claims of one or more tokens, whose signature and
    expiry are good, and returns as many booleans, true for a token that is refused. It is asked
    for each new token, and every second for the tokens of the open sockets of a server process, so
    it should answer for many by one query. If it raises, or answers for fewer, all are refused.
    """
    if check not in _checks:
        _checks.append(check)
    return check


def forget(check: Check) -> None:
    """Ask a registered function no more."""
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
