"""Asks the project's list of refused tokens, and waits only so long for its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auth_rls.subjects import denylist
from realtime.util.hook_threads import in_hook_thread

#: How long the list may take; what is not answered then is refused.
SECONDS = 5.0


async def denied(tokens: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each token, by its claims, whether the list refuses it. All are refused if the list fails
    or does not answer in time."""
    if not denylist.in_use():
        return [False] * len(tokens)
    try:
        return await in_hook_thread(SECONDS, denylist.denied, tokens)
    except TimeoutError:
        denylist.unanswered(SECONDS)
        return [True] * len(tokens)
