"""The part of a tailer that numbers only while no other one does.

It takes no lead: a process that follows the log for a while must not keep a tailer that publishes
to all servers from leading. Numbering without the lead is safe (see `sequencer`).
"""

from __future__ import annotations

import time

from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.event_log.leadership import Lead, LeaseState, is_gone
from realtime.wal.vendor import vendor_of

# How long entries may wait for a leader whose lease ran out while it was idle.
_GRACE_SECONDS = 1.0


class Substitute:
    """In place of a `Leadership`. Called from the tailer's thread."""

    #: It has none: what it numbers, it numbers without the lead.
    lead: Lead | None = None
    id = ""

    def __init__(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        # The lease whose holder was found to be gone.
        self._over: Lead | None = None
        self._waiting: tuple[object, float] | None = None
        self._numbers = False

    @property
    def leading(self) -> bool:
        """Whether it numbers, in place of a leader."""
        return self._numbers

    def consider(
        self, connection: BaseDatabaseWrapper, lease: LeaseState, seq: int, waiting: bool
    ) -> bool:
        """Whether nobody leads, given the lease in the head row. `waiting`: entries without a
        number are visible; `seq`: the last number given."""
        self._numbers = self._nobody_leads(connection, lease, seq, waiting)
        return self._numbers

    def _nobody_leads(
        self, connection: BaseDatabaseWrapper, lease: LeaseState, seq: int, waiting: bool
    ) -> bool:
        leader = lease.lead.leader
        if not leader or is_gone(leader):
            return True
        if not lease.run_out:
            self._over = None
            return False
        if self._over == lease.lead or vendor_of(connection).renews_idle_leases:
            return True
        if not waiting:
            return False
        state = (lease.lead, seq)
        if self._waiting is None or self._waiting[0] != state:
            self._waiting = (state, time.monotonic())
        if time.monotonic() - self._waiting[1] >= self._grace_seconds:
            self._over = lease.lead
        return self._over == lease.lead

    def renew(self, connection: BaseDatabaseWrapper) -> None:
        """There is no lease to renew."""

    def lost(self) -> None:
        """There is no lead to lose."""
        self._numbers = False

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """There is no lead to give up."""
