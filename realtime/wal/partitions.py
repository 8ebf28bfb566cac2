"""The partitions of the log, on a database that keeps it in partitions by the ids of entries.

Pure: which partitions are to be made, and which of them may go. A partition holds the entries of a
range of ids. Entries whose id is in no range are in the default partition, so a write never fails
because nobody has made the next partition; they are deleted one by one and not with their
partition, which costs more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Partition:
    """Entries with first <= id < end. `first` is None for everything below `end`. `name` is SQL for
    the table, quoted and with its schema where that is needed."""

    name: str
    first: int | None
    end: int

    def closed(self, last_id: int) -> bool:
        """Whether no new entry comes into it; `last_id` is the last id that was drawn."""
        return self.end <= last_id


@dataclass(frozen=True, slots=True)
class Layout:
    """The partitions, by their ranges and the oldest one first, and what is to be known beside
    them. `last_id` is the last id that was drawn, `stray_id` the highest one in the default
    partition; None: it is empty."""

    partitions: tuple[Partition, ...]
    last_id: int
    stray_id: int | None = None

    @property
    def closed(self) -> tuple[Partition, ...]:
        """The partitions that no new entry comes into, which alone are pruned whole."""
        return tuple(p for p in self.partitions if p.closed(self.last_id))


@dataclass(frozen=True, slots=True)
class Contents:
    """The entries of a partition. `last_seq` is the highest number of one, None if none has a
    number; `waiting` says whether an entry has none."""

    last_seq: int | None
    waiting: bool

    def beyond(self, upto: int) -> bool:
        """Whether every entry has a number, up to this one at most."""
        return not self.waiting and (self.last_seq is None or self.last_seq <= upto)


@dataclass(frozen=True, slots=True)
class Spans:
    """The sizes of partitions, in ids.

    A partition has `least` ids, or twice that, and so on, so that the kept entries are in about
    `share` partitions at most. Room is made `ahead` partitions before it is needed; each look at
    what is new has to open these, so they are few. No partition is made for ids that come sooner
    than `margin`: a statement that has begun to write does not know a partition that is made
    meanwhile, and PostgreSQL would refuse its rows.
    """

    least: int = 2**20
    share: int = 32
    ahead: int = 1
    margin: int = 2**20

    def size(self, kept: int) -> int:
        """The ids of a new partition in a log with so many entries."""
        size = self.least
        while size * self.share < kept:
            size *= 2
        return size

    def first_end(self, last_id: int) -> int:
        """Where the first partition ends, which takes all that there is."""
        return self._behind(last_id)

    def missing(self, layout: Layout, kept: int) -> list[tuple[int, int]]:
        """The ranges (first, end) of the partitions to make now, in a log with so many entries."""
        size = self.size(kept)
        after = layout.last_id + 1
        room = sum(
            max(0, p.end - max(after if p.first is None else p.first, after))
            for p in layout.partitions
        )
        top = max((p.end for p in layout.partitions), default=0)
        # No partition can be made for ids that the default partition has already.
        stray = layout.stray_id or 0
        near = max(layout.last_id + self.margin, stray) >= top
        first = self._behind(max(layout.last_id, stray)) if near else top
        found = []
        while room < size * self.ahead:
            found.append((first, first + size))
            first += size
            room += size
        return found

    def _behind(self, id_: int) -> int:
        """The next limit of a partition, at least `margin` behind this id."""
        return -(-(id_ + self.margin) // self.least) * self.least


SPANS = Spans()


class Busy(RuntimeError):
    """Somebody uses the log in a way that has to end first; nothing was changed. The text says who
    or what, as part of a sentence."""


class Partitions(Protocol):
    """The partitions of the log of one database. Every method may raise what the database raises.

    No method keeps a writer waiting for longer than some hundredths of a second.
    """

    def not_ours(self) -> str | None:
        """Why the role of this connection may not make, read and drop partitions, as a sentence
        without a full stop; None if it may. One that may not can still write to the log, read it
        and delete from it, with the rights that it has on the whole."""
        ...

    def layout(self) -> Layout:
        """What there is. Without `stray_id` where the role may not read the default partition."""
        ...

    def strays(self, most: int) -> int:
        """How many entries the default partition holds, at most `most`; 0 where the role may not
        read it."""
        ...

    def make_missing(self) -> int:
        """Make the partitions that will be needed next; how many were made. Raises Busy."""
        ...

    def newest_seq(self, partition: Partition) -> int | None:
        """The number of the newest entry of the partition that has one: a quick look at whether it
        is old enough. None if none has a number."""
        ...

    def last_seq(self, partition: Partition) -> int | None:
        """The highest number of an entry of the partition, whether the entry is there or not."""
        ...

    def empty(self, partition: Partition, upto: Callable[[], int]) -> int | None:
        """Remove all entries of the partition at once, if each has a number up to `upto()`, which
        is called when no transaction can add one any more. How many there were; None if some
        stay. Raises Busy, and what `upto` raises."""
        ...

    def drop_empty(self) -> int:
        """Drop the closed partitions that have no entry, and none of whose entries has left its
        number behind; how many were dropped. Raises Busy."""
        ...
