"""`captured_changes`: what a block of code wrote, as the stream would send it.

Reads the log inside the test's own transaction, so nothing needs to be committed. Entries become
changes by the code of the stream; `delivered` decides which subjects get them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.db import connections

from auth_rls.subjects.resolve import subject_of
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.table import last_captured, read_captured, relations
from realtime.subscriptions.change import Change
from realtime.subscriptions.change_payload import data, unchanged
from realtime.testing import change as changes
from realtime.testing.delivered import Sent, sent_to
from realtime.testing.preconditions import capturing
from realtime.wal.actor import subject_name
from realtime.wal.entry import WalRow


class Changes(list[Change]):
    """What a block wrote to published models, in the order of the log. Empty inside the block."""

    def __init__(self, alias: str, after: int) -> None:
        super().__init__()
        self._alias = alias
        self._after = after
        self._until = after
        self._events: list[DatabaseEvent] = []

    def read(self) -> None:
        """The block has ended: read what it wrote."""
        connection = connections[self._alias]
        entries = read_captured(self._alias, self._after)
        self._until = last_captured(connection)
        self._events = _events(entries)
        for event in self._events:
            if event.relation.published and not unchanged(event):
                self.append(self._change(Sent(event, None, True, event.op)))

    def delivered_to(self, user_or_subject: Any) -> list[Change]:
        """What this Django user or `Subject` is sent of the block's changes, if it listens to every
        published model: judged as the stream judges, each change by the policies, permissions and
        memberships as they were when it came.

        Raises TypeError for what is neither.
        """
        # What was written since the block is undone, to know how things were.
        later = _events(read_captured(self._alias, self._until))
        found = sent_to(user_or_subject, self._events, later, self._alias)
        subject = subject_of(user_or_subject)
        writer = None if subject is None else subject_name(subject)
        return [self._change(sent, writer) for sent in found]

    def _change(self, sent: Sent, writer: str | None = None) -> Change:
        event = sent.event
        more: dict[str, Any] = {"seq": event.seq, "commit_timestamp": None, "actor": event.actor}
        if event.old is None and event.new is None:
            return changes.emptied(event.relation.schema, event.relation.table, **more)
        tx = event.tx_of(writer)
        told = data(event, sent.select, sent.show_old, op=sent.op, tx=tx)
        return changes.read(msgspec.json.decode(told), **more)


@contextmanager
def captured_changes() -> Iterator[Changes]:
    """`with captured_changes() as changes:` collects what the block writes to published models.

    `changes` is a list of `Change`, filled when the block has ended, with `delivered_to(user)`. It
    works inside a transaction that is never committed (`TestCase`, `django_db`), sees whatever
    writes: the ORM, bulk writes, raw SQL. What a savepoint took back is not there.

    Raises SetupError where the test database cannot capture.
    """
    alias = capturing()
    found = Changes(alias, last_captured(connections[alias]))
    yield found
    found.read()


def _events(rows: Iterable[WalRow]) -> list[DatabaseEvent]:
    """As events, numbered from 1 as the sequencer would."""
    return relations.events(
        msgspec.structs.replace(row, seq=place) for place, row in enumerate(rows, 1)
    )
