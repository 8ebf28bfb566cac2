"""What replays deliver of each change, made once for all that deliver the same.

When a server restarts, thousands of channels come back and have missed the same changes. The frame
of a change depends on the change and on how a channel joined, not on who asks for it, so it is
encoded once for all channels that joined alike. Whether a channel gets a change depends on the
policies and filters of its subscriptions. So it is decided once for all channels whose
subscriptions are equal, bound policies and values of sets included, and by every other channel for
itself: no verdict of one subject is used for another.

Memory is bounded in bytes; what was used longest ago is forgotten, and made again if it is needed.
Pure, apart from the log record of a policy that cannot be evaluated.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from weakref import WeakValueDictionary

from realtime.delivery.frame import SharedFrame
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.failures import log_failure
from realtime.subscriptions.filter_ledger import load_of
from realtime.subscriptions.frames import ChangeFrames
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.seen_change import SeenChange
from realtime.util.counters import Counters

_MOST_BYTES = 16 * 1024 * 1024
# The data object, a text, its WebSocket frame and its compressed frame.
_FORMS = 4
_CHANGE_BYTES = 1_000
_VERDICT_BYTES = 200
# Audiences that are remembered after their replays have ended, and about how many bytes one of them
# may occupy: it files policies and filters under each of their values, and nobody pays any more for
# the filters of a client that has left.
_MOST_AUDIENCES = 512
_MOST_AUDIENCE_BYTES = 16 * 1024
_AUDIENCE_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """What the channels of an audience get of one change."""

    frames: tuple[SharedFrame | SeenChange, ...]
    #: The frames' sizes together.
    size: int
    #: Ids of bindings whose filters cost too much on this change.
    too_costly: frozenset[int]


# The one recipient of the index of an audience.
_REPLAYS = "replays"
_NOTHING = Found((), 0, frozenset())


def _size(key: AudienceKey) -> int:
    """About how many bytes the audience of a key occupies."""
    size = len(key.topic)
    for item in key.subscriptions:
        size += _AUDIENCE_BYTES + load_of(item.rls).bytes + load_of(item.filter).bytes
        if size > _MOST_AUDIENCE_BYTES:
            break
    return size


class _Change:
    """One change: its frames, and by number of the audience the verdicts that are shared: those of
    its writer, who took a receipt, apart."""

    __slots__ = ("encoded", "event", "made", "own_verdicts", "size", "verdicts")

    def __init__(self, event: DatabaseEvent) -> None:
        self.event = event
        self.made = ChangeFrames(event)
        self.verdicts: dict[int, Found] = {}
        self.own_verdicts: dict[int, Found] = {}
        # How many of its frames were counted, and how many bytes.
        self.encoded = self.size = 0


class ReplayAudience:
    """The replays of channels that get the same of every change."""

    __slots__ = (
        "__weakref__",
        "_index",
        "_number",
        "_shared_changes",
        "_too_costly",
        "shared",
        "small",
    )

    def __init__(self, changes: SharedChanges, key: AudienceKey, number: int) -> None:
        self._shared_changes = changes
        self._number = number
        self._too_costly: set[int] = set()
        #: Whether more than one replay has asked for it. Only then are its verdicts remembered.
        self.shared = False
        #: Whether it may be remembered when no replay has it any more.
        self.small = _size(key) <= _MOST_AUDIENCE_BYTES
        # The index refers to the set and not to the audience, which would be a reference cycle.
        too_costly = self._too_costly

        def costs_too_much(_: str, item: Subscription) -> None:
            too_costly.add(item.id)

        self._index: SubscriptionIndex[str] = SubscriptionIndex(
            log_failure, on_too_costly=costs_too_much
        )
        self._index.set(_REPLAYS, key)

    def found(self, event: DatabaseEvent, tx: str | None = None) -> Found:
        """What these channels get of a change; with its receipt, what those of its writer get.
        Raises what encoding the row raises."""
        change = self._shared_changes.change(event)
        verdicts = change.verdicts if tx is None else change.own_verdicts
        known = verdicts.get(self._number)
        if known is not None:
            return known
        self._too_costly.clear()
        frames = tuple(change.made.of(delivery, tx) for delivery in self._index.match(event))
        found = _NOTHING
        if frames or self._too_costly:
            found = Found(frames, sum(map(len, frames)), frozenset(self._too_costly))
        if self.shared:
            verdicts[self._number] = found
        self._shared_changes.measure(change)
        return found


class SharedChanges:
    """One per process, on its event loop. It occupies about `most_bytes` at most."""

    def __init__(self, counters: Counters, most_bytes: int = _MOST_BYTES) -> None:
        self._counters = counters
        self._most_bytes = most_bytes
        #: About how many bytes the changes occupy.
        self.size = 0
        self._epoch = ""
        # By seq, the one that was used longest ago first.
        self._changes: OrderedDict[int, _Change] = OrderedDict()
        self._numbers = count()
        self._audiences: WeakValueDictionary[AudienceKey, ReplayAudience] = WeakValueDictionary()
        # Those that were used last, for replays that follow each other.
        self._recent: OrderedDict[ReplayAudience, None] = OrderedDict()

    def begin(self, epoch: str) -> None:
        """The changes that follow are those of this epoch."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._changes.clear()
            self.size = 0

    def audience(self, key: AudienceKey) -> ReplayAudience:
        """The audience of a channel with this key, whose policies must hold the values of their
        sets. A large one is shared as long as a replay of it runs, others for some time longer."""
        found = self._audiences.get(key)
        if found is None:
            found = ReplayAudience(self, key, next(self._numbers))
            self._audiences[key] = found
        else:
            found.shared = True
        if not found.small:
            return found
        self._recent[found] = None
        self._recent.move_to_end(found)
        if len(self._recent) > _MOST_AUDIENCES:
            self._recent.popitem(last=False)
        return found

    def change(self, event: DatabaseEvent) -> _Change:
        """What is known of a change, for audiences."""
        change = self._changes.get(event.seq)
        if change is None or not (change.event is event or change.event == event):
            change = _Change(event)
            if (other := self._changes.pop(event.seq, None)) is not None:
                self.size -= other.size
            self._changes[event.seq] = change
        else:
            self._changes.move_to_end(event.seq)
        return change

    def measure(self, change: _Change) -> None:
        """Count what an audience has added to a change, and forget changes beyond the bound."""
        made = change.made
        size = _CHANGE_BYTES + 3 * change.event.size + _FORMS * made.size
        size += _VERDICT_BYTES * (len(change.verdicts) + len(change.own_verdicts))
        self._counters.encoded += made.encoded - change.encoded
        change.encoded = made.encoded
        if self._changes.get(change.event.seq) is not change:
            return
        self.size += size - change.size
        change.size = size
        while self.size > self._most_bytes:
            _, gone = self._changes.popitem(last=False)
            self.size -= gone.size
