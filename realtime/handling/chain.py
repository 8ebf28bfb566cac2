"""Chains of handlers: writes of handlers that make handlers run. Pure.

What a handler writes has the actor `handler:NAME`. If the change that it handled was itself written
by a handler, the actor says which link of the chain it is: `handler:NAME#2`, `#3` and so on. So a
loop is found by its length, over several handlers, processes and restarts.
"""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "handler:"
MOST_LINKS = 20
"""A longer chain is taken for a loop."""


def link_of(actor: str | None) -> int:
    """Which link of a chain a change with this actor is; 0 if no handler wrote it."""
    if actor is None or not actor.startswith(PREFIX):
        return 0
    number = actor.rpartition("#")[2]
    return int(number) if "#" in actor and number.isdecimal() and len(number) < 10 else 1


def next_link(actors: Iterable[str | None]) -> int:
    """Which link the writes are that handle changes with these actors."""
    return max(map(link_of, actors), default=0) + 1


def actor_of(handler: str, link: int) -> str:
    """The actor of a handler's writes."""
    return f"{PREFIX}{handler}" if link == 1 else f"{PREFIX}{handler}#{link}"
