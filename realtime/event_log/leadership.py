"""Leadership: one tailer numbers, the others stand by.

The lease is in the head row: a term, the leader's id, and a time by the database's clock, which all
tailers share. It is taken by one conditional UPDATE, which raises the term. Numbering locks the
head row `WHERE` term and leader are its own, in the transaction that numbers, so a leader that was
paused and replaced numbers nothing when it goes on. Order and completeness do not depend on
leadership (see `sequencer`); it saves double work and double messages.

A leader on PostgreSQL renews once a second, so the leader of an expired lease has ended. On SQLite
an idle leader does not write: it renews in the transaction that numbers, and its lease may expire
while there is nothing to number. A standby there takes over when entries wait, the lease has
expired, and the leader has had a second to number them. Nothing was to be done before, and a lone
process, the usual case, does not write while it is idle.

A leader on the same machine whose process has ended is replaced without waiting for its lease.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.wal.clock import now_us_sql
from realtime.wal.head import find_head
from realtime.wal.vendor import vendor_of

logger = logging.getLogger("realtime.leadership")

# A killed leader is replaced within 3 s. One that runs may miss one renewal and publish slowly.
LEASE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds. `renew`: between renewals. `grace`: how long entries may wait for a leader whose
    lease ran out while it was idle, where an idle leader does not renew."""

    renew: float = 1.0
    grace: float = 1.0


_LEASE_US = int(LEASE_SECONDS * 1_000_000)

# A lease also counts as expired if it is so far ahead that the clock must have been set back.
_TAKE = f"""
UPDATE realtime_head SET term = term + 1, leader = %s, lease_until_us = {{now}} + {_LEASE_US},
    stamp = {{stamp}}
WHERE id = 1 AND leader = %s AND term = %s
  AND (%s OR lease_until_us <= {{now}} OR lease_until_us > {{now}} + {2 * _LEASE_US})
"""
_RENEW = f"""
UPDATE realtime_head SET lease_until_us = {{now}} + {_LEASE_US}, stamp = {{stamp}}
WHERE id = 1 AND term = %s AND leader = %s
"""
_RELEASE = """
UPDATE realtime_head SET leader = '', lease_until_us = 0, stamp = {stamp}
WHERE id = 1 AND term = %s AND leader = %s
"""
_FIND = "SELECT term, leader, lease_until_us - {now} FROM realtime_head WHERE id = 1"


class Deposed(Exception):
    """Another tailer has taken the lead."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The right to number, valid while the head row has exactly this term and leader."""

    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease in the head row: the lead that it is of, and for how many microseconds it is still
    valid."""

    lead: Lead
    left_us: int

    @property
    def run_out(self) -> bool:
        return not 0 < self.left_us <= 2 * _LEASE_US


@dataclass(frozen=True, slots=True)
class Role:
    """Whether a tailer leads, or stands by while `leader` leads ("" for none yet)."""

    leading: bool
    leader: str


def renewal(connection: BaseDatabaseWrapper) -> str:
    """SQL for the end of a lease that is renewed now, in microseconds since 1970."""
    return f"{now_us_sql(connection)} + {_LEASE_US}"


def _stamp(connection: BaseDatabaseWrapper) -> str:
    return vendor_of(connection).stamp(connection)


def find_lease(connection: BaseDatabaseWrapper) -> LeaseState | None:
    """The lease in the head row; None in a database that has no head yet. Raises what the database
    raises."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND.format(now=now_us_sql(connection)))
        row = cursor.fetchone()
    return None if row is None else LeaseState(Lead(row[0], row[1]), row[2])


def new_id() -> str:
    """The id of a tailer of this process: host, process id, the namespace of that id, and a random
    part. At most 64 characters."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{_namespace()}:{secrets.token_hex(3)}"


def is_gone(leader: str) -> bool:
    """Whether it is certain that this tailer's process has ended."""
    return _lives(leader) is False


def _lives(leader: str) -> bool | None:
    """Whether this tailer's process runs; None where that cannot be found out from here."""
    parts = leader.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdecimal() or not parts[2] or parts[2] != _namespace():
        return None
    try:
        os.kill(int(parts[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return None
    return True


@functools.cache
def _namespace() -> str:
    """Identifies the namespace of process ids: this boot of this machine or container. Empty where
    it cannot be found out."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2s(f"{boot} {namespace}".encode(), digest_size=4).hexdigest()


class Leadership:
    """The part of one tailer. Called from the tailer's thread; raises what the database raises."""

    def __init__(
        self, on_change: Callable[[Role], None] | None = None, timing: Timing | None = None
    ) -> None:
        self.id = new_id()
        self._timing = timing or Timing()
        self.lead: Lead | None = None
        self._on_change = on_change
        self._role: Role | None = None
        self._renewed = 0.0
        self._waiting: tuple[object, float] | None = None
        self._first = True

    @property
    def leading(self) -> bool:
        """Whether this tailer leads as far as it knows."""
        return self.lead is not None

    def consider(
        self, connection: BaseDatabaseWrapper, lease: LeaseState, seq: int, waiting: bool
    ) -> bool:
        """Keep, take or give up the lead, given the lease in the head row. Returns whether this
        tailer leads.

        `waiting`: entries without a number are visible; `seq`: the last number given.
        """
        if self.lead is not None and lease.lead == self.lead:
            self.renew(connection)
            return self.lead is not None
        self.lead = None
        leader = lease.lead.leader
        lives = _lives(leader) if leader else False
        free = lives is False
        late = waiting and self._waited(lease, seq) >= self._timing.grace
        # A tailer that has just started takes an expired lead, unless the leader is known to live:
        # otherwise the first event after the replacement of a container would have to wait.
        started = self._first and lives is None
        wanted = late or started or vendor_of(connection).renews_idle_leases
        self._first = False
        if (free or (lease.run_out and wanted)) and self._take(connection, lease, free):
            self._announce(Role(True, self.id))
            return True
        self._announce(Role(False, leader))
        return False

    def renew(self, connection: BaseDatabaseWrapper) -> None:
        """Renew the lease if it is time. Notices when the lead was lost."""
        if self.lead is None or not vendor_of(connection).renews_idle_leases:
            return
        moment = time.monotonic()
        if moment - self._renewed < self._timing.renew:
            return
        with connection.cursor() as cursor:
            sql = _RENEW.format(now=now_us_sql(connection), stamp=_stamp(connection))
            cursor.execute(sql, [self.lead.term, self.lead.leader])
            if cursor.rowcount:
                self._renewed = moment
            else:
                self.lost()

    def lost(self) -> None:
        """Another tailer leads. The next look finds out which."""
        self.lead = None

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """Give up the lead at once, so that a standby can take it. Does nothing for a standby."""
        lead, self.lead = self.lead, None
        if lead is not None:
            with connection.cursor() as cursor:
                cursor.execute(_RELEASE.format(stamp=_stamp(connection)), [lead.term, lead.leader])

    def _waited(self, lease: LeaseState, seq: int) -> float:
        """For how many seconds, by this process's clock, entries have waited for a number."""
        state = (lease.lead, seq)
        if self._waiting is None or self._waiting[0] != state:
            self._waiting = (state, time.monotonic())
        return time.monotonic() - self._waiting[1]

    def _take(self, connection: BaseDatabaseWrapper, lease: LeaseState, free: bool) -> bool:
        old = lease.lead
        moment = time.monotonic()
        head = find_head(connection)
        if head is not None:
            # Before the row names this tailer.
            vendor_of(connection).remember(connection, head.epoch, head.seq)
        with connection.cursor() as cursor:
            sql = _TAKE.format(now=now_us_sql(connection), stamp=_stamp(connection))
            cursor.execute(sql, [self.id, old.leader, old.term, free])
            if not cursor.rowcount:
                return False
        self.lead = Lead(old.term + 1, self.id)
        self._renewed = moment
        return True

    def _announce(self, role: Role) -> None:
        if role == self._role:
            return
        # A change among other leaders is not reported.
        changed = self._role is None or self._role.leading != role.leading
        self._role = role
        if not changed:
            return
        if role.leading:
            logger.info("leading as %s", role.leader, extra={"action": "leading"})
        else:
            logger.info(
                "standing by; %s leads", role.leader or "nobody", extra={"action": "standing_by"}
            )
        if self._on_change is not None:
            self._on_change(role)
