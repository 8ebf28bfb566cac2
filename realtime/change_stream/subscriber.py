"""A subscriber that is code of this process: changes go to its inbox, and notices become the error
that ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realtime.change_stream.errors import (
    AccessRevoked,
    ResyncRequired,
    SnapshotTruncated,
    SubscriptionEnded,
)
from realtime.change_stream.inbox import Inbox
from realtime.delivery.outbox import Outgoing
from realtime.event_log.position import Position
from realtime.protocol.change_frame import ChangeFrame
from realtime.protocol.serializer import Version
from realtime.protocol.table_key import TableKey
from realtime.topics.rights import TopicRights


class CodeSubscriber:
    """One per iterator. `ended` is called once, when nothing more comes; `sees_rows` says whether a
    policy may show the subject any row. Refers to no iterator, so that one that is forgotten can be
    collected."""

    version = Version.V2
    topic = ""
    change_frame = ChangeFrame.VALUE
    patient = True

    def __init__(
        self,
        id_: str,
        table: str,
        inbox: Inbox,
        ended: Callable[[], None],
        sees_rows: Callable[[], bool],
    ) -> None:
        self.id = id_
        self._table = table
        #: Takes the changes.
        self.outlet = inbox
        self._ended = ended
        self._sees_rows = sees_rows
        self._saw_rows = False

    @property
    def broadcast_outlet(self) -> Inbox:
        """It joins no topic, so no broadcast comes."""
        return self.outlet

    @property
    def connection(self) -> object:
        """Its filters are charged to itself."""
        return self

    def takes_more(self) -> bool:
        """Whether the consumer has taken most of what was delivered."""
        return self.outlet.takes_more()

    async def writable(self) -> None:
        """Wait until the consumer has taken most of what was delivered."""
        await self.outlet.writable()

    def subscribed(self) -> None:
        """It is subscribed now."""
        self._saw_rows = self._sees_rows()

    def resubscribed(self) -> None:
        """The rows that the subject may see have changed."""
        sees = self._sees_rows()
        if self._saw_rows and not sees:
            self._end(
                AccessRevoked(f"no policy shows the subject rows of {self._table} any more"),
                at_once=True,
            )
        self._saw_rows = sees

    def caught_up(self, at: Position) -> None:
        """Everything since the cursor was delivered."""
        self.outlet.reached(at)

    def snapshot_begins(self, at: Position, keys: Sequence[TableKey]) -> None:
        """The rows of the snapshot follow. One that begins behind other changes takes the place of
        a history that is lost, which the consumer could not tell from more rows."""
        if self.outlet.began:
            self.resync(at)

    def snapshot(self, at: Position, count: int, complete: bool) -> None:
        """The rows of the snapshot were delivered."""
        if complete:
            self.outlet.reached(at)
        else:
            self._end(SnapshotTruncated(f"only {count} rows of {self._table} came"))

    def resync(self, at: Position) -> None:
        """Changes are lost."""
        self._end(ResyncRequired(self._table, f"{at.epoch}:{at.seq}"))

    def binding_ended(self, problem: str, *, working: bool) -> None:
        """Nothing comes of the table any more."""
        self._end(SubscriptionEnded(problem))

    def revoked(self) -> None:
        """The user was deactivated, deleted or disconnected, or its token is refused."""
        self._end(AccessRevoked("the subject may not ask any more"), at_once=True)

    def expired(self) -> None:
        """The token of the subject has expired."""
        self._end(AccessRevoked("the token of the subject has expired"), at_once=True)

    def close(self) -> None:
        """The process stops."""
        self._end(None)

    def permitted(self, rights: TopicRights) -> None:
        """It is on no topic."""

    def hear(self, frame: Outgoing, id_: str) -> None:
        """It is on no topic."""

    def _end(self, error: Exception | None, *, at_once: bool = False) -> None:
        if not self.outlet.ended or at_once:
            self.outlet.end(error, at_once=at_once)
            self._ended()
