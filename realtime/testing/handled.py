"""`handled_changes`: runs handlers on what a block of code wrote, in the test's own transaction.

Which changes a handler gets, and in what form, is decided by the code that runs them. Cursors,
attempts and time limits have no part in it: a handler that fails fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from django.db import connections, transaction

from realtime.event_log.event import DatabaseEvent
from realtime.event_log.table import last_captured, read_captured, relations
from realtime.handling import chain, registry
from realtime.handling.handled_change import HandledChange
from realtime.handling.matching import Matcher, UnfitHandler
from realtime.handling.operations import unknown
from realtime.testing.preconditions import SetupError, capturing
from realtime.wal import actor
from realtime.wal.head import read_head


@contextmanager
def handled_changes(*names: str) -> Iterator[list[HandledChange]]:
    """`with handled_changes("invoices") as handled:` runs these handlers on what the block writes,
    when it has ended; without names all that are declared in code. Then on what they wrote, until
    nothing is left.

    `handled` is a list of the changes that they got, in order, filled when the block has ended. It
    works inside a transaction that is never committed (`TestCase`, `django_db`). What a handler
    raises comes out of the `with` statement, and what that attempt wrote is rolled back.

    Raises SetupError for a name that no handler has, for a handler that does not fit its model and
    where the test database cannot capture; AssertionError for handlers that run without end because
    of each other's writes.
    """
    alias = capturing()
    matchers = _matchers(names)
    after = last_captured(connections[alias])
    handled: list[HandledChange] = []
    yield handled
    epoch = read_head(connections[alias]).epoch
    seq = 0
    while rows := read_captured(alias, after):
        after = last_captured(connections[alias])
        events = relations.events(
            msgspec.structs.replace(row, seq=place) for place, row in enumerate(rows, seq + 1)
        )
        seq += len(rows)
        for matcher in matchers:
            mine = [event for event in events if matcher.matches(event)]
            size = matcher.definition.batch
            for first in range(0, len(mine), size):
                handled += _handle(alias, matcher, mine[first : first + size], epoch)


def _matchers(names: Sequence[str]) -> list[Matcher]:
    known = {definition.name: definition for definition in registry.declared()}
    for name in names:
        if name not in known:
            raise SetupError(unknown(name, set(known)))
    try:
        return [Matcher(known[name]) for name in names or known]
    except UnfitHandler as error:
        raise SetupError(f"{error.message} {error.hint}") from None


def _handle(
    alias: str, matcher: Matcher, events: Sequence[DatabaseEvent], epoch: str
) -> list[HandledChange]:
    definition = matcher.definition
    link = chain.next_link(event.actor for event in events)
    if link > chain.MOST_LINKS:
        raise AssertionError(
            f"a loop: the handler {definition.name!r} got the {chain.MOST_LINKS}th in a row of "
            "changes that handlers wrote because of each other"
        )
    changes = [matcher.change(event, epoch) for event in events]
    name = chain.actor_of(definition.name, link)
    with transaction.atomic(using=alias), actor.acting(lambda: name):
        definition.call(changes)
    return changes
