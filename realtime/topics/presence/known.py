"""Who is present in the topics of this process, as far as it knows: what a message of another
process or a read of the table does to it.

Pure. Of every process the number of its last write that is known here is kept. A message that
follows this number is applied, one that is older is skipped, and after any other the process is
`unread`: its members are to be read again. Messages may be lost, doubled and reordered. While the
table is read, messages have to wait, so that a read is never older than what is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from realtime.topics.presence.changes import Key, PresenceChanges, Present
from realtime.topics.presence.state import PresenceMeta, PresenceState


@dataclass(frozen=True, slots=True)
class Table:
    """One read of the table, in one database snapshot.

    `numbers` has every process that is registered, with the number of its last write; None if it
    has written nothing, or the database has lost it. `rows` are members with their process, in the
    order they came. `epoch` and `seq` say how far the log was numbered.
    """

    numbers: Mapping[str, int | None]
    rows: Collection[tuple[str, Present]]
    epoch: str = ""
    seq: int = 0


class KnownPresence:
    """The topics that are loaded in one process. `process` is the id of this process, whose own
    changes are never missed."""

    def __init__(self, process: str = "") -> None:
        self.process = process
        #: The members of each loaded topic.
        self.topics: dict[Key, PresenceState] = {}
        #: Processes whose members are to be read again.
        self.unread: set[str] = set()
        self._numbers: dict[str, int] = {}
        # Topics that were read after a write whose message is still to come: numbers by process.
        self._ahead: dict[Key, dict[str, int]] = {}
        # Numbers in the last look that were beyond those known.
        self._beyond: dict[str, int] = {}

    def drop(self, key: Key) -> None:
        """A topic is not needed any more; does nothing if it is not loaded."""
        self.topics.pop(key, None)
        self._ahead.pop(key, None)
        if not self.topics:
            # The next topic brings all numbers with it.
            self._numbers.clear()
            self._beyond.clear()
            self.unread.clear()

    def hear(self, message: PresenceChanges) -> set[Key]:
        """Apply a message, or find that others were missed. Returns the topics that it concerns."""
        process = message.process
        known = self._numbers.get(process, 0)
        if not self.topics or message.number <= known:
            return set()
        if not (message.whole or message.before == known or process == self.process):
            self.unread.add(process)
            return set()
        if message.whole:
            self.unread.discard(process)
        touched = self._put_whole(message) if message.whole else self._put_changes(message)
        self._numbers[process] = message.number
        self._caught_up(process)
        return touched

    def take(
        self, table: Table, topics: Collection[Key], processes: Collection[str] = ()
    ) -> set[Key]:
        """Apply a read of the members of these topics and of these processes. Returns the topics
        that it concerns. The topics are loaded from here on."""
        if not self.topics:
            self._numbers = {process: number or 0 for process, number in table.numbers.items()}
        touched = set(topics)
        for process in [known for known in self._numbers if known not in table.numbers]:
            touched |= self._replace(process, {})
            self._forget(process)
        for process in table.numbers:
            self._numbers.setdefault(process, 0)
        rows: dict[Key, dict[str, list[PresenceMeta]]] = {}
        for process, row in table.rows:
            rows.setdefault(row.topic_key, {}).setdefault(process, []).append(_meta(process, row))
        self.unread.difference_update(processes)
        for process in processes:
            number = table.numbers.get(process)
            # A lower number is that of a table which has lost something: the process will write its
            # members anew.
            if number is not None and number >= self._numbers[process]:
                of_process = {key: found.get(process, []) for key, found in rows.items()}
                touched |= self._replace(process, of_process)
                self._numbers[process] = number
                self._caught_up(process)
        for key in topics:
            state = self.topics.setdefault(key, PresenceState())
            state.replace(entry for found in rows.get(key, {}).values() for entry in found)
            ahead = {
                process: number
                for process, number in table.numbers.items()
                if number is not None and number > self._numbers[process]
            }
            if ahead:
                self._ahead[key] = ahead
            else:
                self._ahead.pop(key, None)
        return touched

    def look(self, table: Table, *, at_once: bool) -> None:
        """Compare the numbers of all processes with those known. A process is unread when its
        number is ahead, and was so at the last look already: its message may be on its way. With
        `at_once`, where no messages come, one look is enough."""
        before, self._beyond = self._beyond, {}
        for process, number in table.numbers.items():
            known = self._numbers.get(process, 0)
            if not self.topics or number is None or number <= known or process == self.process:
                continue
            self._beyond[process] = number
            if at_once or known < before.get(process, 0):
                self.unread.add(process)

    # --- changes ------------------------------------------------------------------------------

    def _put_changes(self, message: PresenceChanges) -> set[Key]:
        process, number = message.process, message.number
        touched = set()
        for row in message.put:
            key = row.topic_key
            state = self.topics.get(key)
            if state is not None and number > self._ahead_of(key, process):
                state.put(_meta(process, row))
                touched.add(key)
        for gone in message.gone:
            key = gone.topic_key
            state = self.topics.get(key)
            if state is not None and number > self._ahead_of(key, process):
                state.remove(gone.id, gone.version)
                touched.add(key)
        return touched

    def _put_whole(self, message: PresenceChanges) -> set[Key]:
        rows: dict[Key, list[PresenceMeta]] = {}
        for row in message.put:
            rows.setdefault(row.topic_key, []).append(_meta(message.process, row))
        return self._replace(message.process, rows, message.number)

    def _replace(
        self, process: str, rows: Mapping[Key, Iterable[PresenceMeta]], number: int | None = None
    ) -> set[Key]:
        """Make these the only members of a process, in the topics that are not ahead of the
        number."""
        touched = set()
        for key, state in self.topics.items():
            if number is not None and number <= self._ahead_of(key, process):
                continue
            state.replace_of(process, rows.get(key, ()))
            if state.changed:
                touched.add(key)
        return touched

    def _ahead_of(self, key: Key, process: str) -> int:
        ahead = self._ahead.get(key)
        return 0 if ahead is None else ahead.get(process, 0)

    def _caught_up(self, process: str) -> None:
        for key, ahead in list(self._ahead.items()):
            if ahead.get(process, 0) <= self._numbers[process]:
                ahead.pop(process, None)
            if not ahead:
                del self._ahead[key]

    def _forget(self, process: str) -> None:
        del self._numbers[process]
        self.unread.discard(process)
        self._beyond.pop(process, None)
        for ahead in self._ahead.values():
            ahead.pop(process, None)


def _meta(process: str, row: Present) -> PresenceMeta:
    return PresenceMeta(row.id, row.version, row.key, row.meta, row.user_id, process)
