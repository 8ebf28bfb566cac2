"""Which tables decide access, and which subjects a change of them may concern.

Has the columns that policies read captured before they are used. Reads policies for a `Planner`,
and plans nothing itself. Methods run in a database thread, except those that only take events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import Model

from auth_rls.access import authority
from auth_rls.access.past import Past, PastUnknown, models_of_past
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.predicates.predicate import Select, columns
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.event_log.position import Position
from realtime.event_log.table import read_later, relations
from realtime.subscriptions.identity_tables import table_of, user_id_of, user_keys
from realtime.subscriptions.planner import Planner
from realtime.wal import capture, triggers
from realtime.wal.head import read_head


@dataclass(frozen=True, slots=True)
class RebindScope:
    """Which channels changes of permissions may concern.

    `everybody`: all channels. `policies`: those subscribed to a table whose policies changed.
    `users`: those of the users with these primary keys as text. `capture_gap`: for a while tables
    behind selects may not have been captured. `edits`: rows of policies before and after a change;
    there may be such a gap where a policy reads fewer columns than before.
    """

    everybody: bool = False
    policies: bool = False
    users: frozenset[str] = frozenset()
    capture_gap: bool = False
    edits: tuple[tuple[RowImage, RowImage | None], ...] = ()


EVERYBODY = RebindScope(everybody=True)


class AccessWatch:
    """Which tables decide access, as of the last `look`, which had them captured."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._known: Mapping[type[Model], frozenset[str]] = {}
        self.tables: frozenset[str] = frozenset()
        #: The table of stored policies, as the log has it.
        self.policies = table_of("auth_rls.Policy")
        self._naming = {table_of("auth.Permission"), table_of("contenttypes.ContentType")}
        self._binding = user_keys()

    def look(self) -> Planner:
        """A planner for the policies as they are now.

        The triggers come first: a table that a policy newly reads must be captured before its
        rows are read, or a change between the two would never be noticed.
        """
        snapshot = PolicySnapshot.load()
        watched = authority.watched(snapshot=snapshot)
        if watched != self._known:
            triggers.follow_policies(self._alias)
            snapshot = PolicySnapshot.load()
        self._known = watched
        self.tables = frozenset(capture.table_name_of(model)[1] for model in watched)
        return Planner(snapshot)

    def planner_at(self, at: Position) -> Planner:
        """A planner for the policies, users and permissions as they were at this position, for use
        in the caller's transaction. In a database thread, inside `one_snapshot`.

        Raises PastUnknown where the log does not tell.
        """
        head = read_head(connections[self._alias])
        if head.epoch != at.epoch or head.seq < at.seq:
            # The log has begun anew; every channel will be bound again for the new epoch.
            return Planner()
        return Planner(PolicySnapshot.load_past(self._past(at)))

    def _past(self, at: Position) -> Past:
        tables = [capture.table_name_of(model)[1] for model in models_of_past()]
        try:
            return past_of(relations.events(read_later(self._alias, tables, at.seq)))
        except OverflowError as error:
            raise PastUnknown(str(error)) from None

    def binds(self, event: DatabaseEvent) -> bool:
        """Whether this change may alter the plan of a subject, and not only a set."""
        table = event.relation.table
        return table == self.policies or table in self._binding

    def scope(self, events: Iterable[DatabaseEvent]) -> RebindScope:
        """The channels that these changes may concern; all where that cannot be known."""
        everybody = policies = capture_gap = False
        edits: list[tuple[RowImage, RowImage | None]] = []
        users: set[str] = set()
        for event in events:
            table = event.relation.table
            if table == self.policies:
                policies = True
                if event.old is not None:
                    edits.append((event.old, event.new))
                else:
                    capture_gap = capture_gap or event.new is None
            elif table in self._binding:
                # They name the model of policies, which may read other tables now.
                capture_gap = capture_gap or (table in self._naming and event.op != "INSERT")
                column = self._binding[table]
                images = [image for image in (event.old, event.new) if image is not None]
                keys = [None if column is None else image.get(column) for image in images]
                names = [None if key is None else user_id_of(key) for key in keys]
                everybody = everybody or not names or None in names
                users.update(name for name in names if name is not None)
        return RebindScope(everybody, policies, frozenset(users), capture_gap, tuple(edits))

    def capture_gap(self, scope: RebindScope) -> bool:
        """Whether these edits may have ended the capture of rows behind a select for a while. In a
        database thread."""
        return not all(authority.reads_on(*edit) for edit in scope.edits)

    def captures(self, select: Select) -> bool:
        """Whether the columns that a select reads were captured at the last look."""
        needed = columns(select.where) | {select.column}
        return needed <= self._known.get(apps.get_model(select.model), frozenset())

    def covers(self, planner: Planner) -> bool:
        """Whether every column that decides for this planner was captured at the last look."""
        return planner.watched() == self._known


def past_of(later: Iterable[DatabaseEvent]) -> Past:
    """The moment before these changes, which are all there were since, in order; those of tables
    that a `Past` is not made of are passed over. Raises PastUnknown."""
    models = {capture.table_name_of(model)[1]: model for model in models_of_past()}
    rows: dict[type[Model], dict[Any, RowImage | None]] = {}
    for event in later:
        model = models.get(event.relation.table)
        if model is None:
            continue
        if event.old is None and event.new is None:
            raise PastUnknown(f"{event.op} of {event.relation.table}")
        found = rows.setdefault(model, {})
        key = model._meta.pk.column
        # The first change of a key shows the row as it was before all changes.
        if event.old is not None:
            found.setdefault(event.old[key], event.old)
        if event.new is not None:
            found.setdefault(event.new[key], None)
    return Past(rows)
