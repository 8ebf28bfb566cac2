"""Rows as they stood at a position in the log, read from the tables as they are now.

One database snapshot shows the tables, the head, and every captured change that is in the tables,
numbered or not. Changes after the position are undone by the images in the log, so that the rows
and the stream from the position on fit together, without any record of the rows that were read.
Policies and users count as they are in the same database snapshot: rows are never newer than the
permissions they are shown under. They are read there, or known from before where the log shows in
the same snapshot that they have not changed since the position. The caller passes the sets that it
keeps for the position; only other sets are read here.

Everything here except `SnapshotReader` runs in a database thread. Row images are made by the
expression that the capture triggers use, so a row looks the same in a snapshot and in the stream.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from django.db import connections
from django.db.models import BinaryField, Case, IntegerField, QuerySet, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.lookups import Exact

from auth_rls.predicates.evaluate import TooCostly, matcher
from auth_rls.predicates.predicate import FALSE, TRUE, All, Any_, Predicate, Select, columns
from auth_rls.predicates.selects import resolve
from auth_rls.predicates.simplify import simplify
from auth_rls.sets.reader import read_members
from auth_rls.sql.compile import condition, shielded, widened
from realtime.event_log.event import RowImage, row_of
from realtime.event_log.position import Position
from realtime.event_log.table import read_later, relations
from realtime.subscriptions.access_watch import AccessWatch
from realtime.subscriptions.dependencies import differing
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.judgement import STEPS_PER_EVENT, FilterTooCostly, Judgement
from realtime.subscriptions.known_users import KnownUsers
from realtime.subscriptions.planner import Plan, Planner
from realtime.subscriptions.replay.unsent import UnsentRows
from realtime.subscriptions.request import Request, Revoked
from realtime.util.database_threads import in_database_thread
from realtime.util.fair_share import FairShare
from realtime.wal import published, row_images
from realtime.wal.entry import Relation
from realtime.wal.head import Head, find_head
from realtime.wal.snapshots import one_snapshot

# Rows of one query, and of it in memory at a time beside those that are kept: rows may be large.
_PAGE = 500
_CHUNK = 50
_MOST_BYTES = 64 * 1024 * 1024
_LOOKS = 5
# Bytes of memory that a row occupies beside its text.
_ROW_OVERHEAD = 400
# Fewer than there are database threads, so that joins do not wait for large reads.
_READING_AT_ONCE = 2

LiveKey = tuple[int, str]
Values = Mapping[Select, frozenset[object]]
_NONE: Values = MappingProxyType({})
RowAt = tuple[Relation, RowImage]


class SnapshotUnavailable(Exception):
    """The rows as of this position cannot be known now. At a later position they may be."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of each subscription at one position. `complete` is False if there are more."""

    request: Request
    plan: Plan
    commit_us: int
    sets: list[tuple[Subscription, list[RowAt]]]
    complete: bool

    @property
    def size(self) -> int:
        """About how many bytes the rows take."""
        return sum(_size(rows) for _, rows in self.sets)


@dataclass(frozen=True, slots=True)
class RowMoves:
    """For each live subscription, the rows that leave it by other permissions, and those that
    come."""

    request: Request
    plan: Plan
    commit_us: int
    moves: list[tuple[Subscription, list[RowAt], list[RowAt]]]

    @property
    def size(self) -> int:
        """About how many bytes the rows take."""
        return sum(_size(leaving) + _size(coming) for _, leaving, coming in self.moves)


def _size(rows: list[RowAt]) -> int:
    return sum(len(row.raw) + _ROW_OVERHEAD for _, row in rows)


class SnapshotReader:
    """Reads snapshots for the event loop. `at` is a position that this process has reached. Methods
    raise SnapshotUnavailable, Revoked, and what the database raises."""

    def __init__(
        self,
        alias: str,
        watch: AccessWatch,
        users: KnownUsers,
        plan: Callable[[Request], Awaitable[tuple[Request, Plan]]],
    ) -> None:
        """`plan` returns a request with its user, and its plan, both as of the call or later, as
        a join gets them. It raises Revoked, and what the database raises."""
        self._alias = alias
        self._watch = watch
        self._users = users
        self._plan = plan
        # Charged in seconds of reading. One address leaves a slot to the others.
        self._reads = FairShare(_READING_AT_ONCE)
        #: Rows that were read here and are still to be sent.
        self.unsent = UnsentRows()

    async def snapshot(
        self,
        request: Request,
        at: Position,
        wanted: Mapping[int, int | None],
        values: Values = _NONE,
    ) -> Snapshot:
        """The rows of these bindings. `wanted` gives for each binding id the most rows, None for
        all."""

        def take(snapshot: _Snapshot) -> Snapshot:
            sets: list[tuple[Subscription, list[RowAt]]] = []
            complete = True
            left = dict(wanted)
            for subscription in dict.fromkeys(snapshot.plan.subscriptions):
                if subscription.id not in wanted:
                    continue
                most = left[subscription.id]
                rows, all_ = snapshot.rows(snapshot.resolved(subscription), most)
                complete = complete and all_
                if most is not None:
                    left[subscription.id] = most - len(rows)
                sets.append((subscription, rows))
            return Snapshot(
                snapshot.request, snapshot.plan, snapshot.commit_us(at.seq), sets, complete
            )

        return await self._look(request, at, values, take, unchanged=True)

    async def moves(
        self,
        request: Request,
        at: Position,
        verdicts: Mapping[LiveKey, Predicate],
        most: int | None,
        values: Values,
    ) -> RowMoves:
        """The rows that come and go in live subscriptions of which the client has rows by other
        predicates, `verdicts`.

        Raises SnapshotUnavailable for more than `most` rows, too.
        """

        def take(snapshot: _Snapshot) -> RowMoves:
            moves: list[tuple[Subscription, list[RowAt], list[RowAt]]] = []
            for key, bound in snapshot.plan.live.items():
                subscription = snapshot.resolved(bound)
                before = verdicts.get(key, subscription.rls)
                if before != subscription.rls:
                    moves.append((subscription, *snapshot.moved(subscription, before, most)))
            return RowMoves(snapshot.request, snapshot.plan, snapshot.commit_us(at.seq + 1), moves)

        return await self._look(request, at, values, take, unchanged=False)

    async def _look(
        self,
        request: Request,
        at: Position,
        values: Values,
        take: Callable[[_Snapshot], Any],
        *,
        unchanged: bool,
    ) -> Any:
        """`unchanged`: whether permissions are likely to be those at the position still."""
        seconds = 0.0
        known: tuple[Request, Plan] | None = None

        def look() -> Any:
            nonlocal seconds
            began = time.perf_counter()
            try:
                return read()
            finally:
                seconds = time.perf_counter() - began

        def read() -> Any:
            for _ in range(_LOOKS):
                with one_snapshot(self._alias):
                    row_images.prepare(connections[self._alias])
                    snapshot = _Snapshot(self._alias, at, values)
                    if known is not None and self._unchanged(at):
                        snapshot.request, snapshot.plan = known
                        return take(snapshot)
                    planner = Planner()
                    if self._watch.covers(planner):
                        snapshot.bind(request, planner)
                        return take(snapshot)
                # The tables that decide access must be captured before rows are read, or a later
                # change of them would not be in the log.
                self._watch.look()
            raise SnapshotUnavailable("policies change too fast")

        while True:
            await self.unsent.room(request.payer)
            async with self._reads.slot(request.payer) as slot:
                # Other rows may have been read while this waited for its slot.
                if self.unsent.has_room(request.payer):
                    if unchanged and self._users.plain:
                        known = await self._plan(request)
                    try:
                        return await in_database_thread(look)
                    finally:
                        slot.charge(seconds)

    def _unchanged(self, at: Position) -> bool:
        """Whether permissions are now what they were at the position."""
        return self._users.unchanged_since(at, self._watch.policies)


@dataclass(slots=True)
class _Snapshot:
    alias: str
    at: Position
    values: Values
    request: Request = field(init=False)
    plan: Plan = field(init=False)
    _head: Head | None = field(init=False)
    _undone: dict[str, dict[bytes, RowAt | None]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._head = find_head(connections[self.alias])
        if self._head is None or self._head.epoch != self.at.epoch or self._head.seq < self.at.seq:
            raise SnapshotUnavailable("the log is another one")

    def bind(self, request: Request, planner: Planner) -> None:
        """Show the rows of this request by the policies and users of this database snapshot. Raises
        Revoked."""
        subject = planner.renew([request.subject])[request.subject]
        if subject is None:
            raise Revoked
        self.request = replace(request, subject=subject)
        self.plan = self.request.plan(planner)

    def resolved(self, subscription: Subscription) -> Subscription:
        """The subscription with the values of its sets in key of their selects."""

        def values_of(select: Select) -> frozenset[object]:
            known = self.values.get(select)
            return frozenset(read_members(select, self.alias)) if known is None else known

        rls = resolve(subscription.rls, values_of)
        return subscription if rls is subscription.rls else replace(subscription, rls=rls)

    def commit_us(self, seq: int) -> int:
        """The commit time of this event, or of the last one kept before it, in microseconds."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(
                "SELECT commit_us FROM realtime_wal_number WHERE seq <= %s"
                " ORDER BY seq DESC LIMIT 1",
                [seq],
            )
            row = cursor.fetchone()
        if row is not None:
            return int(row[0])
        return 0 if self._head is None else self._head.commit_us

    def rows(self, subscription: Subscription, most: int | None) -> tuple[list[RowAt], bool]:
        """The rows of the subscription, at most so many, and whether these are all."""
        wants = _wants(subscription, subscription.rls)
        needed = columns(subscription.rls) | columns(subscription.filter)
        undone = self._undone_of(subscription.table, needed)
        earlier = [seen for seen in undone.values() if seen is not None and wants(seen[1])]
        found: list[RowAt] = []
        size = 0
        current = (seen for seen, _, _ in self._read(subscription, subscription.rls, None))
        for source in (earlier, current):
            for seen in source:
                size += len(seen[1].raw)
                if (most is not None and len(found) >= most) or size > _MOST_BYTES:
                    return found, False
                found.append(seen)
        return found, True

    def moved(
        self, subscription: Subscription, before: Predicate, most: int | None
    ) -> tuple[list[RowAt], list[RowAt]]:
        """The rows that leave and those that come when `before` becomes the subscription's."""
        after = subscription.rls
        undone = self._undone_of(
            subscription.table, columns(before) | columns(after) | columns(subscription.filter)
        )
        leaving: list[RowAt] = []
        coming: list[RowAt] = []
        wants = _wants(subscription, TRUE)
        judges = matcher(before), matcher(after)
        for seen in undone.values():
            if seen is not None:
                was, now = (judge(seen[1]) is True for judge in judges)
                if was is not now and wants(seen[1]):
                    (leaving if was else coming).append(seen)
        # A filter is only evaluated on rows that the policies show, before or now.
        policy = simplify(All((differing(before, after), Any_((before, after)))))
        size = 0
        for seen, was, now in self._read(subscription, policy, (before, after)):
            if was is not now:
                (leaving if was else coming).append(seen)
            size += len(seen[1].raw)
            if (most is not None and len(leaving) + len(coming) > most) or size > _MOST_BYTES:
                raise SnapshotUnavailable("too many rows come and go")
        return leaving, coming

    def _read(
        self,
        subscription: Subscription,
        policy: Predicate,
        judged: tuple[Predicate, Predicate] | None,
    ) -> Iterator[tuple[RowAt, bool, bool]]:
        """Rows on which `policy` and the filter are true now, without those that changed after the
        position; each with the truth of the two predicates in `judged`, of rows on which these
        differ."""
        policy = simplify(policy)
        if policy == FALSE or subscription.filter == FALSE:
            return
        model = _model(subscription.table)
        relation = published.relation_for(model, reads=())
        undone = self._undone[subscription.table]
        broad = simplify(widened(subscription.filter))
        # Only the filter may hold comparisons without SQL. Those are evaluated here.
        wants = None if broad == simplify(subscription.filter) else _wants(subscription, TRUE)
        rows: QuerySet[Any] = QuerySet(model=model).using(self.alias).order_by("pk")
        if (policy, broad) != (TRUE, TRUE):
            rows = rows.filter(shielded(policy, broad, model))
        # Not by annotations: their names might be those of the model's fields.
        shown: list[Any] = ["pk", _image(self.alias, model, relation)]
        if judged is not None:
            before, after = (_truth(predicate, model) for predicate in judged)
            rows = rows.exclude(Exact(before, after))
            shown += [before, after]
        rows = rows.values_list(*shown)
        page, read = rows, _PAGE
        while read == _PAGE:
            read = 0
            for pk, raw, *truths in page[:_PAGE].iterator(chunk_size=_CHUNK):
                read += 1
                if read == _PAGE:
                    page = rows.filter(pk__gt=pk)
                row = row_of(raw, relation)
                if wants is not None and not wants(row):
                    continue
                if undone and row.json(relation.key) in undone:
                    continue
                was, now = map(bool, truths) if truths else (True, True)
                yield (relation, row), was, now

    def _undone_of(self, table: str, needed: frozenset[str]) -> dict[bytes, RowAt | None]:
        """By key, each row of a table that changed after the position, as it was there; None for a
        row that did not exist there. Raises SnapshotUnavailable where the log does not tell."""
        if table not in self._undone:
            try:
                later = read_later(self.alias, [table], self.at.seq)
            except OverflowError as error:
                raise SnapshotUnavailable(str(error)) from None
            self._undone[table] = {}
            for event in relations.events(later):
                if event.names_no_row:
                    raise SnapshotUnavailable(f"{event.op} of {table}")
                self._undo(event.relation, event.old, event.new)
        for seen in self._undone[table].values():
            if seen is not None and not _has_columns(seen[0], needed):
                raise SnapshotUnavailable("columns that decide were not captured yet")
        return self._undone[table]

    def _undo(self, relation: Relation, old: RowImage | None, new: RowImage | None) -> None:
        # The first change of a key shows the row as it was before all changes.
        undone = self._undone[relation.table]
        if old is not None:
            undone.setdefault(old.json(relation.key), (relation, old))
        if new is not None:
            undone.setdefault(new.json(relation.key), None)


def _wants(subscription: Subscription, rls: Predicate) -> Callable[[RowImage], bool]:
    """A function that returns whether the subscription gets a row by these policies and its filter.
    It raises FilterTooCostly."""
    judgement = Judgement(rls, subscription.filter)
    meter = judgement.meter

    def wants(row: RowImage) -> bool:
        if meter is not None:
            meter.left = STEPS_PER_EVENT
        try:
            return judgement.wants(row)
        except TooCostly:
            raise FilterTooCostly(subscription) from None

    return wants


def _has_columns(relation: Relation, needed: frozenset[str]) -> bool:
    """Whether entries of this relation have the columns that decide."""
    return relation.published and needed <= {column.name for column in relation.columns}


def _model(table: str) -> Any:
    return next(entry.model for entry in published.published() if entry.table == table)


def _truth(predicate: Predicate, model: Any) -> Case:
    return Case(
        When(condition(predicate, model), then=Value(1)),
        default=Value(0),
        output_field=IntegerField(),
    )


def _image(alias: str, model: Any, relation: Relation) -> RawSQL:
    sql = row_images.expression(alias, model, relation)
    return RawSQL(sql.replace("%", "%%"), [], output_field=BinaryField())
