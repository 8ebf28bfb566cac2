"""One row's entries, the newest first, followed through changes of its key.

A row is what has the key now, or had it last. An UPDATE that gave it this key leads to the key
before. Before an INSERT there was no row; one that had the same key earlier, until it was deleted,
counts as the same row. One that left the key by another key is another row.
"""

from __future__ import annotations

from collections.abc import Iterator

from realtime.row_history.entries import Entry, Key, TableEntries


def walk(entries: TableEntries, key: Key, down_to: int = 0) -> Iterator[Entry | int]:
    """The row's entries after the seq `down_to`; between them the seq down to which all were looked
    at. Those without a number come first, with seq 0."""
    row = _Row(key)
    waiting = entries.waiting()
    seen = {entry.id for entry in waiting}
    for entry in reversed(waiting):
        if row.takes(entry):
            yield entry
    upto = entries.head.seq
    while True:
        key_read = row.key
        for found in entries.of_key(key_read, upto, down_to):
            if isinstance(found, int):
                upto = found
                yield found
                continue
            # It may have got its number meanwhile.
            if found.id in seen and found.id:
                continue
            if row.takes(found):
                yield found
                if row.key != key_read:
                    upto = found.event.seq - 1
                    break
        else:
            return


class _Row:
    """The row on the way back through the log."""

    def __init__(self, key: Key) -> None:
        self.key = key
        # Whether the row began with the last entry that was its own.
        self._began = False

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is the row's. The key is then the one before it."""
        op = entry.event.op
        if op == "TRUNCATE":
            self._began = False
            return True
        if (entry.key("old") if op == "DELETE" else entry.key("new")) != self.key:
            return False
        if self._began and op != "DELETE":
            return False
        self._began = op == "INSERT"
        before = entry.key("old")
        if op == "UPDATE" and before is not None:
            self.key = before
        return True
