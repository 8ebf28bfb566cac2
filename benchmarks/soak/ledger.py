"""The accounts of a long run: what was written, the order it got, and what each reader got of it.

Pure. Writers report each change once it is committed. One reader, the witness, sees every change:
it gives each one its seq. What it saw must be what was written. What another reader gets must be
what the witness saw, without what that reader may not see.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

# Examples of what is wrong, in a report.
_SHOWN = 5


class Change(NamedTuple):
    """A change of a row. No two changes of a run are equal: an INSERT or UPDATE gives the row a
    title that it has only once, and a row is deleted once (`title` is None then)."""

    op: str
    key: int
    title: str | None


@dataclass(frozen=True, slots=True)
class Traits:
    """The columns of a row that policies and filters look at."""

    owner: int | None
    public: bool
    score: int


class Seen(NamedTuple):
    """A change as the witness saw it; `mark` stands for the change."""

    seq: int
    mark: int
    traits: Traits


class Ledger:
    """What was written, and what the witness saw. Times are nanoseconds of the monotonic clock."""

    def __init__(self) -> None:
        self.written = 0
        #: Up to this seq the witness has seen everything.
        self.horizon = 0
        self._awaited: dict[Change, int] = {}
        self._unreported: dict[Change, int] = {}
        self._seqs = array("q")
        self._marks = array("q")
        self._committed = array("q")
        self._kinds = array("l")
        self._traits: list[Traits] = []
        self._number_of: dict[Traits, int] = {}

    def wrote(self, change: Change, committed: int) -> None:
        """A writer committed this at that time."""
        self.written += 1
        index = self._unreported.pop(change, None)
        if index is None:
            self._awaited[change] = committed
        else:
            self._committed[index] = committed

    def saw(self, seq: int, change: Change, traits: Traits) -> None:
        """The witness got this. The seqs rise."""
        committed = self._awaited.pop(change, 0)
        if not committed:
            self._unreported[change] = len(self._seqs)
        number = self._number_of.setdefault(traits, len(self._traits))
        if number == len(self._traits):
            self._traits.append(traits)
        self._seqs.append(seq)
        self._marks.append(hash(change))
        self._committed.append(committed)
        self._kinds.append(number)
        self.reached(seq)

    def reached(self, seq: int) -> None:
        """The witness has everything up to this seq."""
        self.horizon = max(self.horizon, seq)

    def committed(self, seq: int) -> int | None:
        """When this change was committed; None if no writer has reported it so far."""
        index = bisect_right(self._seqs, seq) - 1
        if index < 0 or self._seqs[index] != seq:
            return None
        return self._committed[index] or None

    def between(self, after: int, upto: int) -> Iterator[Seen]:
        """What the witness saw after the one seq, up to the other."""
        first, end = (bisect_right(self._seqs, seq) for seq in (after, upto))
        for index in range(first, end):
            yield Seen(self._seqs[index], self._marks[index], self._traits[self._kinds[index]])

    @property
    def unseen(self) -> list[Change]:
        """Committed, and not seen by the witness so far: what is lost, once all is over."""
        return list(self._awaited)

    @property
    def unwritten(self) -> list[Change]:
        """Seen by the witness, and not reported by a writer so far: rolled back, or doubled."""
        return list(self._unreported)


@dataclass
class Account:
    """What one reader got, over all its connections. `sees`: whether it may see a change of a row
    with these traits, by its policies and its filter."""

    sees: Callable[[Traits], bool]
    received: int = 0
    lost: int = 0
    doubled: int = 0
    examples: list[str] = field(default_factory=list)
    #: The last seq up to which it has everything: where it resumes.
    position: int = 0
    _checked: int = field(default=0, init=False)
    _last: int = field(default=0, init=False)
    _got: dict[int, int] = field(default_factory=dict, init=False)

    def begin(self, seq: int) -> None:
        """It gets what comes after this seq."""
        self.position = self._checked = self._last = seq

    def got(self, seq: int, change: Change) -> None:
        """A change came. One that is not after the last one is doubled, or out of order."""
        self.received += 1
        if seq <= self._last:
            self._wrong("doubled", f"{change} of seq {seq} after {self._last}")
            return
        self._got[seq] = hash(change)
        self._last = self.position = seq

    def reached(self, seq: int) -> None:
        """The server says that everything up to this seq has been sent."""
        self.position = max(self.position, seq)

    def check(self, ledger: Ledger) -> None:
        """Compare what came with what the witness saw, as far as both go."""
        upto = min(self.position, ledger.horizon)
        if upto <= self._checked:
            return
        for seen in ledger.between(self._checked, upto):
            if not self.sees(seen.traits):
                continue
            if self._got.pop(seen.seq, None) != seen.mark:
                self._wrong("lost", f"seq {seen.seq} is lost, or another change")
        for seq in [seq for seq in self._got if seq <= upto]:
            del self._got[seq]
            self._wrong("doubled", f"seq {seq} is not for it, or does not exist")
        self._checked = upto

    def behind(self, ledger: Ledger) -> bool:
        """Whether the witness saw something that this reader may see and has not got."""
        return any(self.sees(seen.traits) for seen in ledger.between(self.position, ledger.horizon))

    def _wrong(self, kind: str, example: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _SHOWN:
            self.examples.append(example)
