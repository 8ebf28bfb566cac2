"""Quotas: buckets that connections share, so that reconnecting earns a client nothing.

Owns which buckets a connection draws from beside its own: those of its address and of its subject,
multiples of what one connection may do. Many people may sit behind one address, and one person at
many tabs, so the multiples of a burst (everybody comes back after a restart) are far larger than
those of what lasts. Keeps no more than a bounded number of keys, and none that has nothing to
remember.

Pure: the time is an argument.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from realtime.util.token_bucket import AllOf, Rate, TokenBucket

# Addresses or subjects remembered; above that the one heard of longest ago is forgotten.
MOST_KEYS = 50_000


class Share(NamedTuple):
    """How many times what one connection may do, in the long run and at once."""

    rate: float
    burst: float

    def of(self, rate: Rate) -> Rate:
        if rate.per_second is None:
            return rate
        return Rate(rate.per_second * self.rate, rate.burst * self.burst)


class Shares(NamedTuple):
    """Joins cost most and are rare, broadcasts cost little and go on; traffic is whatever comes
    in, of which one connection may send many times what it needs."""

    scope: str
    joins: Share
    broadcasts: Share
    presence: Share
    traffic: Share


OWN = Shares("connection", Share(1, 1), Share(1, 1), Share(1, 1), Share(1, 1))
SUBJECT = Shares("subject", Share(2, 40), Share(10, 20), Share(2, 2), Share(10, 10))
ADDRESS = Shares("address", Share(10, 400), Share(500, 500), Share(20, 20), Share(20, 20))


@dataclass(frozen=True, slots=True)
class Rates:
    """What one connection may do. Renewals are new tokens for its channels."""

    joins: Rate
    renewals: Rate
    broadcasts: Rate
    presence: Rate
    messages: Rate
    bytes: Rate

    @classmethod
    def derive(
        cls,
        *,
        joins_per_second: float | None,
        channels: int | None,
        broadcasts_per_second: float | None,
        broadcast_burst: float | None,
        presence_per_30_seconds: float | None,
        payload_bytes: int | None,
        frame_bytes: int | None,
    ) -> Rates:
        """Messages and bytes follow from the others: many times what those allow, so that only a
        flood meets them. Where one is unlimited, so is what follows from it."""
        messages = data = None
        if joins_per_second is not None and broadcasts_per_second is not None:
            messages = 20 * (joins_per_second + broadcasts_per_second)
            if frame_bytes is not None and payload_bytes is not None:
                data = max(frame_bytes, 2 * broadcasts_per_second * payload_bytes)
        joins = Rate.of(joins_per_second)
        # A client renews all its channels at once, each by a message.
        many = channels or 1_000
        renewals = Rate.of(joins_per_second, max(joins.burst, 4.0 * many))
        presence = presence_per_30_seconds
        return cls(
            joins=joins,
            renewals=renewals,
            broadcasts=Rate.of(broadcasts_per_second, broadcast_burst),
            presence=Rate.per_window(None if presence is None else presence * many, 30.0),
            messages=Rate.of(messages, None if messages is None else 10 * messages),
            bytes=Rate.of(data, None if data is None else 16 * data),
        )


class Quota:
    """The buckets of one holder: a connection, an address, a subject."""

    __slots__ = (
        "__weakref__",
        "broadcasts",
        "bytes",
        "handshakes",
        "joins",
        "messages",
        "presence",
        "renewals",
        "scope",
    )

    def __init__(self, rates: Rates, shares: Shares = OWN) -> None:
        self.scope = shares.scope
        self.joins = TokenBucket(shares.joins.of(rates.joins))
        self.renewals = TokenBucket(shares.joins.of(rates.renewals))
        self.broadcasts = TokenBucket(shares.broadcasts.of(rates.broadcasts))
        self.presence = TokenBucket(shares.presence.of(rates.presence))
        self.messages = TokenBucket(shares.traffic.of(rates.messages))
        self.bytes = TokenBucket(shares.traffic.of(rates.bytes))
        # To connect costs about what a join costs.
        self.handshakes = TokenBucket(shares.joins.of(rates.joins))

    def full(self, now: float) -> bool:
        """Whether nothing is drawn: then a new one would be no different."""
        return (
            self.joins.full(now)
            and self.renewals.full(now)
            and self.broadcasts.full(now)
            and self.presence.full(now)
            and self.messages.full(now)
            and self.bytes.full(now)
            and self.handshakes.full(now)
        )


class QuotaChain:
    """What one connection draws from: its own quota and those it shares. A method returns ""
    when it was granted, else the scope of the quota that had too little left."""

    __slots__ = (
        "_broadcasts",
        "_bytes",
        "_joins",
        "_messages",
        "_presence",
        "_renewals",
        "_scopes",
    )

    def __init__(self, *quotas: Quota) -> None:
        self._scopes = tuple(quota.scope for quota in quotas)
        self._joins = AllOf(*(quota.joins for quota in quotas))
        self._renewals = AllOf(*(quota.renewals for quota in quotas))
        self._broadcasts = AllOf(*(quota.broadcasts for quota in quotas))
        self._presence = AllOf(*(quota.presence for quota in quotas))
        self._messages = AllOf(*(quota.messages for quota in quotas))
        self._bytes = AllOf(*(quota.bytes for quota in quotas))

    def join(self, now: float) -> str:
        return self._take(self._joins, now)

    def renew(self, now: float) -> str:
        return self._take(self._renewals, now)

    def broadcast(self, now: float, n: int = 1) -> str:
        return self._take(self._broadcasts, now, n)

    def presence(self, now: float) -> str:
        return self._take(self._presence, now)

    def message(self, now: float) -> str:
        return self._take(self._messages, now)

    def data(self, now: float, size: int) -> str:
        return self._take(self._bytes, now, size)

    def _take(self, joint: AllOf, now: float, n: float = 1.0) -> str:
        short = joint.take(now, n)
        return "" if short < 0 else self._scopes[short]


class Quotas:
    """The quotas of all addresses and all subjects of a process."""

    def __init__(self, rates: Rates, most: int = MOST_KEYS) -> None:
        self._rates = rates
        self._most = most
        # Those with something to remember, the one asked for longest ago first; and those that a
        # connection holds, which must not meet a second one under their key.
        self._known: OrderedDict[tuple[str, str], Quota] = OrderedDict()
        self._held: WeakValueDictionary[tuple[str, str], Quota] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def address(self, address: str, now: float) -> Quota:
        """What everybody at this address shares."""
        return self._of(ADDRESS, network(address), now)

    def subject(self, subject: str, now: float) -> Quota:
        """What all connections and channels of this subject share."""
        return self._of(SUBJECT, subject, now)

    def _of(self, shares: Shares, key: str, now: float) -> Quota:
        place = (shares.scope, key)
        found = self._held.get(place)
        if found is None:
            found = self._held[place] = Quota(self._rates, shares)
        self._known[place] = found
        self._known.move_to_end(place)
        self._forget(now)
        return found

    def _forget(self, now: float) -> None:
        # A few at each call: every key is looked at again before long, and no call is a slow one.
        for _ in range(2):
            oldest = next(iter(self._known))
            if len(self._known) > self._most or (
                len(self._known) > 1 and self._known[oldest].full(now)
            ):
                del self._known[oldest]
            else:
                return


def network(address: str) -> str:
    """The part of an address that one party holds: of IPv6 the first 64 bits, since whoever has
    one address there has them all. Anything that is no address stands for itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
