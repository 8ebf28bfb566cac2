"""Asks the project's list of refused tokens, and waits only so long for its answer.

Tokens that come while the list is being asked are asked about together, by the next call. A call
for each would keep them waiting where many clients join at once, and who waits too long is refused.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from auth_rls.subjects import denylist
from realtime.util.hook_threads import in_hook_thread

#: How long the list may take; what is not answered then is refused.
SECONDS = 5.0

_Tokens = Sequence[Mapping[str, Any]]


async def denied(tokens: _Tokens) -> list[bool]:
    """For each token, by its claims, whether the list refuses it. All are refused if the list fails
    or does not answer in time."""
    if not denylist.in_use():
        return [False] * len(tokens)
    loop = asyncio.get_running_loop()
    call = _next.get(loop)
    index = None if call is None else call.add(tokens)
    if call is None or index is None:
        call = _next[loop] = _Call(tokens)
        index = 0
    # It is the others' answer, too.
    return (await asyncio.shield(call.answers))[index]


class _Call:
    """One call of the list, about the tokens of all who ask until it begins."""

    def __init__(self, tokens: _Tokens) -> None:
        self._asked = [tokens]
        self._open = True
        self._lock = threading.Lock()
        #: In the order in which they asked.
        self.answers = asyncio.create_task(self._run(), name="rowcast-tokens")

    def add(self, tokens: _Tokens) -> int | None:
        """Ask about these, too; returns the index of their answer, None once the call has begun."""
        with self._lock:
            if not self._open:
                return None
            self._asked.append(tokens)
            return len(self._asked) - 1

    async def _run(self) -> list[list[bool]]:
        try:
            return await in_hook_thread(SECONDS, self._ask)
        except TimeoutError:
            self._close()
            denylist.unanswered(SECONDS)
            return [[True] * len(tokens) for tokens in self._asked]
        finally:
            self._close()
            loop = asyncio.get_running_loop()
            if _next.get(loop) is self:
                del _next[loop]

    def _ask(self) -> list[list[bool]]:
        self._close()
        found = denylist.denied([token for tokens in self._asked for token in tokens])
        if len(self._asked) > 1 and all(found):
            # A token for which the list fails must not refuse those of others.
            return [denylist.denied(tokens) for tokens in self._asked]
        rest = iter(found)
        return [list(islice(rest, len(tokens))) for tokens in self._asked]

    def _close(self) -> None:
        with self._lock:
            self._open = False


# Of each event loop the call that has not begun, or has begun last.
_next: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Call] = weakref.WeakKeyDictionary()
