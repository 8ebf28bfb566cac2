"""The request of a channel, kept so that it can be planned again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from auth_rls.subjects.subject import Subject
from realtime.protocol.join import Binding
from realtime.subscriptions.filter_ledger import ADDRESS, USER, Owner
from realtime.subscriptions.planner import Plan, Planner
from realtime.util.payer_queue import NOBODY, Payer
from realtime.wal.actor import subject_name


class Revoked(Exception):
    """The subject's user is inactive or was deleted."""


@dataclass(frozen=True, slots=True)
class Request:
    """A subject and the bindings of its join.

    `private` is the name of the topic if it is private, else None. `read` is the generation of
    permissions (`Rebinding.generation`) in which the subject's user was read; in any other
    generation the user is read again.
    """

    subject: Subject
    bindings: tuple[Binding, ...]
    private: str | None = None
    read: int = -1
    #: The payer of the reads that the request causes.
    payer: Payer = NOBODY

    @property
    def owner(self) -> Owner | None:
        """Whom its filters are charged to beside the connection: its user, or else its address.
        None where neither is known."""
        if self.subject.user_id is not None:
            return Owner(("user", str(self.subject.user_id)), USER)
        if self.payer.address:
            return Owner(("address", self.payer.address), ADDRESS)
        return None

    @property
    def writer(self) -> str | None:
        """The actor of the changes that the subject made; None where it is no user."""
        return subject_name(self.subject)

    def refused(self, problems: Mapping[int, str]) -> Request:
        """The same request, of which these bindings can never deliver, and why."""
        bindings = (
            replace(b, error=problems[b.id]) if b.id in problems else b for b in self.bindings
        )
        return replace(self, bindings=tuple(bindings))

    def ended(self, ids: Collection[int], reason: str) -> Request:
        """The same request, of which these bindings deliver nothing any more."""
        bindings = (b.ended(reason) if b.id in ids else b for b in self.bindings)
        return replace(self, bindings=tuple(bindings))

    def plan(self, planner: Planner) -> Plan:
        """The plan of the request by this planner. In a database thread."""
        return planner.plan(self.subject, self.bindings, self.private)

    def quick_plan(self, planner: Planner) -> Plan:
        """As `plan`, on an event loop, for one that `is_quick`."""
        return planner.quick_plan(self.subject, self.bindings, self.private)
