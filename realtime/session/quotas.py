"""Quotas: token buckets per connection, per address and per subject.

A connection takes tokens from its own buckets and from those it shares with others of its address
and of its subject, so reconnecting gains nothing. The shared rates are multiples of what one
connection may do. Many people may use one address, and one person many tabs; after a restart all
of them come back at once. The multiples of the burst are therefore far larger than those of the
rate. The number of keys is bounded, and a quota whose buckets are full is dropped.

Pure: the time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakValueDictionary

from realtime.client_limits import Limits
from realtime.util.network import network
from realtime.util.token_bucket import Rate, TokenBucket

# Addresses and subjects remembered; above that the one used longest ago is forgotten.
MOST_KEYS = 50_000
_IDLE_SECONDS = 10.0


class Share(NamedTuple):
    """Multiples of what one connection may do: of the rate, and of the burst."""

    rate: float
    burst: float

    def of(self, rate: Rate) -> Rate:
        if rate.per_second is None or self == (1, 1):
            return rate
        return Rate(rate.per_second * self.rate, rate.burst * self.burst)


class Shares(NamedTuple):
    """The multiples of one scope. Joins cost most and are rare; broadcasts cost little and go on.
    Traffic is every message that comes in."""

    scope: str
    joins: Share
    broadcasts: Share
    presence: Share
    presence_bytes: Share
    traffic: Share


OWN = Shares("connection", Share(1, 1), Share(1, 1), Share(1, 1), Share(1, 1), Share(1, 1))
SUBJECT = Shares("subject", Share(2, 40), Share(2, 10), Share(2, 2), Share(2, 4), Share(10, 10))
ADDRESS = Shares(
    "address", Share(10, 400), Share(100, 250), Share(20, 20), Share(10, 20), Share(20, 20)
)


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one connection may do what. Renewals are new tokens for its channels."""

    joins: Rate
    renewals: Rate
    broadcasts: Rate
    presence: Rate
    presence_bytes: Rate
    messages: Rate
    bytes: Rate
    posted: Rate
    handshakes: Rate

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, limits: Limits) -> Rates:
        """The rates that follow from the limits. Messages and bytes are many times what the other
        limits need, so only a flood reaches them; where one of those is off, these are too."""
        joins_per_second = limits.joins_per_second
        broadcasts_per_second = limits.broadcasts_per_second
        messages = data = None
        if joins_per_second is not None and broadcasts_per_second is not None:
            messages = 10 * (joins_per_second + broadcasts_per_second)
            if limits.frame_bytes is not None and limits.payload_bytes is not None:
                data = max(limits.frame_bytes, broadcasts_per_second * limits.payload_bytes)
        # Bodies of HTTP requests, which are read whole before their messages are counted.
        posted = None if limits.frame_bytes is None else limits.frame_bytes / 10
        joins = Rate.of(joins_per_second)
        # A client renews all its channels at once, each by a message.
        channels = limits.channels_per_connection or 1_000
        renewals = Rate.of(joins_per_second, max(joins.burst, 4.0 * channels))
        presence = limits.presence_per_30_seconds
        # What is tracked stands in the log until that is pruned: in the long run as much as one
        # channel may write, at once a full meta for every channel.
        meta, written = limits.presence_meta_bytes, None
        if meta is not None and presence is not None:
            written = Rate(meta * presence / 30.0, meta * max(channels, presence))
        return cls(
            joins=joins,
            renewals=renewals,
            broadcasts=Rate.of(broadcasts_per_second, limits.broadcast_burst),
            presence=Rate.per_window(None if presence is None else presence * channels, 30.0),
            presence_bytes=written or Rate.of(None),
            messages=Rate.of(messages, None if messages is None else 20 * messages),
            bytes=Rate.of(data, None if data is None else 8 * data),
            posted=Rate.of(posted, None if posted is None else 16 * posted),
            # A handshake costs about as much as a join.
            handshakes=joins,
        )


# The same few for all connections of a process.
@lru_cache(maxsize=64)
def _shared(rates: Rates, shares: Shares) -> Rates:
    """How often all connections of one scope may do it together."""
    return Rates(
        joins=shares.joins.of(rates.joins),
        renewals=shares.joins.of(rates.renewals),
        broadcasts=shares.broadcasts.of(rates.broadcasts),
        presence=shares.presence.of(rates.presence),
        presence_bytes=shares.presence_bytes.of(rates.presence_bytes),
        messages=shares.traffic.of(rates.messages),
        bytes=shares.traffic.of(rates.bytes),
        posted=shares.traffic.of(rates.posted),
        handshakes=shares.joins.of(rates.handshakes),
    )


class Quota:
    """The buckets of one connection, address or subject.

    A bucket is made when it is first taken from: there are many sockets, and most of them do only
    a few of the things that are counted.
    """

    __slots__ = ("__weakref__", "_buckets", "_rates", "scope")

    def __init__(self, rates: Rates, shares: Shares = OWN) -> None:
        self.scope = shares.scope
        self._rates = _shared(rates, shares)
        self._buckets: dict[str, TokenBucket] = {}

    def bucket(self, kind: str) -> TokenBucket:
        """The bucket of this kind, a name of `Rates`."""
        found = self._buckets.get(kind)
        if found is None:
            found = self._buckets[kind] = TokenBucket(getattr(self._rates, kind))
        return found

    def handshake(self, now: float) -> bool:
        """Take a handshake; False if there is none left."""
        return self.bucket("handshakes").take(now)

    def full(self, now: float) -> bool:
        """Whether every bucket is full: then a new quota would be no different."""
        return all(bucket.full(now) for bucket in self._buckets.values())


class QuotaChain:
    """Several quotas used together, such as a connection's own and its address's: tokens are taken
    from all of them or from none. A method returns "" when every quota allows it, else the scope of
    the first that does not."""

    __slots__ = ("_quotas",)

    def __init__(self, *quotas: Quota) -> None:
        # A quota that is not held may be forgotten, and the next use would get a full one.
        self._quotas = quotas

    def join(self, now: float) -> str:
        return self._take("joins", now)

    def renew(self, now: float) -> str:
        return self._take("renewals", now)

    def broadcast(self, now: float, n: int = 1) -> str:
        return self._take("broadcasts", now, n)

    def presence(self, now: float) -> str:
        return self._take("presence", now)

    def presence_data(self, now: float, size: int) -> str:
        return self._take("presence_bytes", now, size)

    def message(self, now: float) -> str:
        return self._take("messages", now)

    def data(self, now: float, size: int) -> str:
        return self._take("bytes", now, size)

    def post(self, now: float, size: int) -> str:
        return self._take("posted", now, size)

    def _take(self, kind: str, now: float, n: float = 1.0) -> str:
        for index, quota in enumerate(self._quotas):
            if not quota.bucket(kind).take(now, n):
                for earlier in self._quotas[:index]:
                    earlier.bucket(kind).give(n)
                return quota.scope
        return ""


class Quotas:
    """The quotas of all addresses and all subjects of a process."""

    def __init__(self, rates: Rates, most: int = MOST_KEYS) -> None:
        self._rates = rates
        self._most = most
        # Quotas that are not full or were asked for just now, with that time, the one asked for
        # longest ago first; and those that a connection holds, of which there must never be a
        # second under the same key.
        self._known: OrderedDict[tuple[str, str], tuple[Quota, float]] = OrderedDict()
        self._held: WeakValueDictionary[tuple[str, str], Quota] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def address(self, address: str, now: float) -> Quota:
        """The quota of all connections from this address."""
        return self._of(ADDRESS, network(address), now)

    def subject(self, subject: str, now: float) -> Quota:
        """The quota of all connections and channels of this subject."""
        return self._of(SUBJECT, subject, now)

    def _of(self, shares: Shares, key: str, now: float) -> Quota:
        name = (shares.scope, key)
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = Quota(self._rates, shares)
        self._known[name] = found, now
        self._known.move_to_end(name)
        self._forget(now)
        return found

    def _forget(self, now: float) -> None:
        # Two at each call: every key is examined again before long, and no call is slow.
        for _ in range(2):
            name, (oldest, asked_at) = next(iter(self._known.items()))
            # A quota that was returned just now may not have been used yet.
            idle = now - asked_at > _IDLE_SECONDS and oldest.full(now)
            if len(self._known) > self._most or (len(self._known) > 1 and idle):
                del self._known[name]
            else:
                return
