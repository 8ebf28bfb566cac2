"""From bindings to subscriptions: the bindings of a join, narrowed to what its subject may see.

Runs in a database thread. The only module that translates between the terms of the wire (tables,
filters) and those of policies (models, permissions). Which rows a subject may see is decided by
`auth_rls.access.authority`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType

from django.conf import settings
from django.db.models import Model

from auth_rls.access import authority
from auth_rls.access.snapshot import PolicySnapshot
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import FALSE, Predicate, Select, selects
from auth_rls.predicates.selects import direct_selects
from auth_rls.predicates.simplify import simplify
from auth_rls.sql import stored_types
from auth_rls.subjects.subject import Subject
from realtime import conf
from realtime.models import Topic
from realtime.protocol.errors import SUBSCRIBED
from realtime.protocol.join import ANY, Binding, BindingError
from realtime.subscriptions.dependencies import Dependence, VerdictDependencies, of_select
from realtime.subscriptions.filter_ledger import FilterUse, load_of
from realtime.subscriptions.identity_tables import about_user, table_of
from realtime.subscriptions.index import Subscription
from realtime.subscriptions.judgement import RowMatcher
from realtime.topics.rights import ALL, NONE, TopicRights
from realtime.util.interned import interned
from realtime.wal import obstacles
from realtime.wal import published as registry
from realtime.wal.published import Published

logger = logging.getLogger("realtime.plan")

# After so long a server asks anew which types columns have in the database.
_TYPES_SECONDS = 60.0
# How long a thread plans, and then leaves the interpreter to others. Most plans take less.
_WORK_SECONDS = 0.001
_REST_SECONDS = 0.004
# Actions that are judged at the time of a request; the stream does not follow their policies.
_NOT_FOLLOWED = frozenset({"add", "change", "delete"})
# A name of a table that is longer is like none that is published.
_LONGEST_NAME = 63
# Of most plans.
_NO_HINTS: Mapping[str, str] = MappingProxyType({})
# The key of the rules on topics, in a mapping of rules by table.
_TOPICS = ""
# A subject, which permissions its user holds, as far as that is known, and what its user has in the
# fields that policies read; None without a user. Equal subjects may be of different moments.
_Holder = tuple[Subject, tuple[bool | None, ...], tuple[object, ...] | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome for one channel: subscriptions for the bindings that work; for each binding None
    or the text of its problem; what the subject may do on the channel's topic."""

    subscriptions: tuple[Subscription, ...]
    problems: tuple[str | None, ...]
    rights: TopicRights = ALL
    # The selects of the policies behind `rights`.
    topic_selects: tuple[Select, ...] = ()
    # By table, the rules that the verdicts were made of, to be compared with later ones.
    rules: Mapping[str, object] = field(default_factory=dict, compare=False)
    # For the text of a problem, a hint for the client.
    hints: Mapping[str, str] = field(default_factory=lambda: _NO_HINTS, compare=False)
    # Of bindings on a whole schema: what is said of its tables of which nothing can come.
    obstructed: tuple[str, ...] = field(default=(), compare=False)
    # What the filters occupy of the bounds on filters.
    filters: tuple[FilterUse, ...] = field(default=(), compare=False)
    # The selects of the predicates on rows, each once; and with those of the rights.
    row_selects: tuple[Select, ...] = field(init=False, compare=False)
    selects: tuple[Select, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        found = (select for item in self.subscriptions for select in direct_selects(item.rls))
        rows = tuple(dict.fromkeys(found))
        object.__setattr__(self, "row_selects", rows)
        object.__setattr__(self, "selects", tuple(dict.fromkeys((*rows, *self.topic_selects))))

    def without(self, ids: Collection[int]) -> Plan:
        """The same plan without the subscriptions of these bindings."""
        return replace(
            self, subscriptions=tuple(item for item in self.subscriptions if item.id not in ids)
        )

    def refused(self, bindings: Sequence[Binding]) -> Plan:
        """The same plan without those of these bindings that have an error, which is among the
        problems. They are all its bindings."""
        ids = {binding.id for binding in bindings if binding.error is not None}
        problems = tuple(
            problem if problem is not None else binding.error
            for problem, binding in zip(self.problems, bindings, strict=True)
        )
        return replace(self.without(ids), problems=problems)

    @property
    def live(self) -> dict[tuple[int, str], Subscription]:
        """The live subscriptions, by binding and table."""
        return {item.live_key: item for item in self.subscriptions if item.live}


class Planner:
    """Plans by policies that were read when the planner was made. Make one for each piece of work.

    Predicates are kept for each subject and table, so that a thousand channels of one subject bind
    the policies once.
    """

    def __init__(self, snapshot: PolicySnapshot | None = None) -> None:
        if snapshot is None:
            snapshot = PolicySnapshot.load()
            obstacles.refresh(conf.current().DATABASE)
            stored_types.look([conf.current().DATABASE], _TYPES_SECONDS)
        self._snapshot = snapshot
        # Whether changes of accounts and policies go by unseen.
        self._unfollowed = bool(obstacles.deciding_elsewhere(conf.current().DATABASE))
        if self._unfollowed:
            # A planner serves many joins.
            logger.error(
                "joins are refused (realtime.E020): %s",
                obstacles.APART,
                extra={"action": "accounts_apart"},
            )
        self._verdicts: dict[tuple[_Holder, str], Predicate] = {}
        self._judges: dict[tuple[_Holder, str], RowMatcher] = {}
        self._topics_select = any(
            model is Topic and any(selects(rule.using)) for model, _, rule in self._snapshot
        )
        self._selects: dict[_Holder, tuple[Select, ...]] = {}
        self._by_table: dict[str, object] = {}
        self._shared_rules: dict[tuple[str, ...], Mapping[str, object]] = {}
        # Of bindings that many subjects have.
        self._covered: dict[Binding, _Covered] = {}
        # The schemas and tables, as bindings name them, of those that are published.
        self._met: set[tuple[str, str]] = set()
        self._filters: dict[tuple[Binding, str, bool], Predicate] = {}
        # The plans that were made on an event loop. They are short ones.
        self._quick: dict[tuple[_Holder, tuple[Binding, ...], str | None], Plan] = {}
        # The fields of users that policies name.
        self._user_fields = authority.user_fields(snapshot, without=_NOT_FOLLOWED)
        #: The permissions ("app.codename") that plans depend on.
        self.permissions = snapshot.permissions(_NOT_FOLLOWED)

    def watched(self) -> Mapping[type[Model], frozenset[str]]:
        """Every table that decides access, with the columns that do."""
        return authority.watched(snapshot=self._snapshot)

    def prefetch(self, subjects: Iterable[Subject]) -> None:
        """Read which of these subjects hold which permissions, in a few queries for all."""
        subjects = list(subjects)
        for model, action in {(model, action) for model, action, _ in self._snapshot}:
            if action not in _NOT_FOLLOWED:
                self._snapshot.prefetch(subjects, model, action)

    def learn(self, subject: Subject, held: Mapping[str, bool]) -> None:
        """Take from the caller which permissions the subject's user holds."""
        if subject.user is not None:
            self._snapshot.learn(held, subject.user.pk)

    def asks_nothing_of(self, subject: Subject) -> bool:
        """Whether plans depend on no permission that the subject's user may hold."""
        return subject.user is None or subject.bypasses_rls or not self.permissions

    def knows(self, subject: Subject) -> bool:
        """Whether it is known which permissions the subject holds."""
        if self.asks_nothing_of(subject):
            return True
        return None not in self._snapshot.known(self.permissions, subject.user.pk)

    def is_quick(
        self, subject: Subject, bindings: Iterable[Binding], private: str | None = None
    ) -> bool:
        """Whether a plan for these makes no query, and does not look for tables among all that are
        published: a name that is like many of them is compared with each for a hint."""
        if not self.knows(subject) or (private is not None and self._topics_select):
            return False
        return all((binding.schema, binding.table) in self._met for binding in bindings)

    def _holder(self, subject: Subject) -> _Holder:
        user = subject.user
        if user is None:
            return subject, (), None
        if subject.bypasses_rls:
            return subject, (), ()
        held = self._snapshot.known(self.permissions, user.pk)
        return subject, held, authority.user_values(subject, self._user_fields)

    def renew(self, subjects: Iterable[Subject]) -> dict[Subject, Subject | None]:
        """Each subject as the database now has it; None if its user may no longer ask."""
        distinct = list(dict.fromkeys(subjects))
        return dict(
            zip(distinct, authority.renew_all(distinct, snapshot=self._snapshot), strict=True)
        )

    def plan(
        self, subject: Subject, bindings: Iterable[Binding], private: str | None = None
    ) -> Plan:
        """The plan for this subject, on a public topic or on the private one of this name. A
        binding that cannot work raises nothing; its text is among the problems."""
        return self._plan(subject, bindings, private, _LoopRelief())

    def quick_plan(
        self, subject: Subject, bindings: tuple[Binding, ...], private: str | None = None
    ) -> Plan:
        """As `plan`, on an event loop, for a plan that `is_quick`. It is one object for all who
        join alike."""
        key = self._holder(subject), bindings, private
        found = self._quick.get(key)
        if found is None:
            found = self._quick[key] = self._plan(subject, bindings, private)
        return found

    def _plan(
        self,
        subject: Subject,
        bindings: Iterable[Binding],
        private: str | None,
        relief: _LoopRelief | None = None,
    ) -> Plan:
        subscriptions: list[Subscription] = []
        problems: list[str | None] = []
        hints: dict[str, str] = {}
        filters: list[FilterUse] = []
        obstructed: list[str] = []
        tables: dict[str, None] = {}
        for binding in bindings:
            if relief is not None:
                relief.give()
            try:
                found = self._bind(subject, binding, obstructed)
            except BindingError as error:
                problems.append(error.message)
                if error.hint is not None:
                    hints[error.message] = error.hint
            else:
                problems.append(None)
                subscriptions += found
                filters += (_use_of(binding, item) for item in found if binding.filter)
                tables |= dict.fromkeys(item.table for item in found)
        if settings.DEBUG and subscriptions and not any(map(_may_show, subscriptions)):
            hints[SUBSCRIBED] = _nothing_shown(subject, subscriptions)
        rights = ALL
        selects: tuple[Select, ...] = ()
        if private is not None:
            rights, selects = self.rights(subject, private), self._topic_selects(subject)
            tables[_TOPICS] = None
        return Plan(
            tuple(subscriptions),
            interned(tuple(problems)) if not any(problems) else tuple(problems),
            rights,
            selects,
            self._rules_on(tuple(tables)),
            hints or _NO_HINTS,
            tuple(obstructed),
            tuple(filters),
        )

    def rights(self, subject: Subject, topic: str) -> TopicRights:
        """What this subject may do on a private topic."""
        if not self._trusts(subject):
            return NONE
        row = {"topic": topic}
        return TopicRights(*(self._allows(subject, action, row) for action in Topic.row_actions))

    def _trusts(self, subject: Subject) -> bool:
        """Whether what the policies say of the subject now will be known to change."""
        by_role = subject.bypasses_rls and subject.user is None
        return not self._unfollowed or by_role

    def _allows(self, subject: Subject, action: str, row: Mapping[str, object]) -> bool:
        key = (self._holder(subject), action)
        judge = self._judges.get(key)
        if judge is None:
            predicate = authority.row_predicate(subject, Topic, action, snapshot=self._snapshot)
            judge = self._judges[key] = matcher(predicate)
        try:
            return judge(row) is True
        except Exception as error:
            logger.error(
                "a policy on topics cannot be evaluated and denies: %s",
                error,
                extra={"action": "evaluation_failed"},
            )
            return False

    def _topic_selects(self, subject: Subject) -> tuple[Select, ...]:
        if not self._topics_select:
            return ()
        holder = self._holder(subject)
        found = self._selects.get(holder)
        if found is None:
            bound = (
                authority.bound_predicate(subject, Topic, action, snapshot=self._snapshot)
                for action in Topic.row_actions
            )
            found = tuple(dict.fromkeys(s for each in bound for s in direct_selects(each)))
            self._selects[holder] = found
        return found

    def agrees(self, plan: Plan) -> bool:
        """Whether the plan was made of the policies that this planner knows."""
        return all(self._rules(table) == rules for table, rules in plan.rules.items())

    def _rules_on(self, tables: tuple[str, ...]) -> Mapping[str, object]:
        """The rules of these tables: one object for all plans with the same tables."""
        found = self._shared_rules.get(tables)
        if found is None:
            found = {table: self._rules(table) for table in tables}
            self._shared_rules[tables] = found
        return found

    def _rules(self, table: str) -> object:
        if not self._by_table:
            self._by_table = {
                entry.table: self._snapshot.deciding(concrete, "view")
                for entry in registry.published()
                if (concrete := entry.model._meta.concrete_model) is not None
            }
            self._by_table[_TOPICS] = tuple(
                self._snapshot.rules(Topic, action) for action in Topic.row_actions
            )
        return self._by_table[table]

    def _bind(self, subject: Subject, binding: Binding, without: list[str]) -> list[Subscription]:
        """The subscriptions of a binding. What is said of tables that a binding on a whole schema
        goes without is appended to `without`."""
        binding.check()
        if not self._trusts(subject):
            raise BindingError(binding.failed(obstacles.APART))
        covered = self._covered.get(binding)
        if covered is None:
            covered = self._covered[binding] = _cover(binding)
            self._met.add((binding.schema, binding.table))
        without += covered.obstructed
        return [self._subscription(subject, binding, published) for published in covered.tables]

    def _subscription(
        self, subject: Subject, binding: Binding, published: Published
    ) -> Subscription:
        rls = self._verdict(subject, published)
        # No pattern is compiled for a subject that may see no row.
        key = binding, published.table, rls != FALSE
        filter_ = self._filters.get(key)
        if filter_ is None:
            # Hidden columns are left out: a filter on one is a filter on an unknown column.
            columns = {column.name: column.kind for column in registry.shape_of(published.model)}
            fits = {name: stored_types.fit_of(published.model, name) for name in columns}
            filter_ = binding.predicate(columns, fits, compiled=rls != FALSE)
            self._filters[key] = filter_
        return Subscription(
            id=binding.id,
            schema=published.schema,
            table=published.table,
            event=binding.event,
            filter=filter_,
            rls=rls,
            select=None if binding.select is None else tuple(sorted(set(binding.select))),
            live=binding.live,
        )

    def _verdict(self, subject: Subject, published: Published) -> Predicate:
        key = (self._holder(subject), published.table)
        found = self._verdicts.get(key)
        if found is None:
            found = authority.bound_predicate(
                subject, published.model, "view", snapshot=self._snapshot
            )
            self._verdicts[key] = found
        return found

    def dependencies(
        self, subject: Subject, subscriptions: Iterable[Subscription]
    ) -> VerdictDependencies:
        """What the verdicts behind these subscriptions depend on."""
        models = {entry.table: entry.model for entry in registry.published()}
        found: set[Dependence] = set()
        for table in {subscription.table for subscription in subscriptions}:
            bound = authority.bound_predicate(
                subject, models[table], "view", snapshot=self._snapshot
            )
            for select in selects(bound):
                found.update(of_select(select, table_of))
        for model in self.watched():
            found.update(about_user(subject, model))
        return VerdictDependencies(frozenset(found))


class _LoopRelief:
    """Lets the event loop run during long work in a thread, by short sleeps: otherwise each of its
    callbacks waits for the interpreter's lock for as long as a thread may keep it."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def give(self) -> None:
        if time.perf_counter() - self._began > _WORK_SECONDS:
            time.sleep(_REST_SECONDS)
            self._began = time.perf_counter()


@dataclass(frozen=True, slots=True)
class _Covered:
    """The tables of a binding, and what is said of those that a binding on a whole schema goes
    without."""

    tables: tuple[Published, ...]
    obstructed: tuple[str, ...]


def _cover(binding: Binding) -> _Covered:
    covered = [
        published
        for published in registry.published()
        if binding.covers(published.schema, published.table)
    ]
    if not covered:
        raise BindingError(binding.not_published(), _unknown(binding))
    obstructed = {
        entry.table: binding.failed(f"nothing can come of {entry.table}: {reason}")
        for entry in covered
        if (reason := obstacles.of(entry))
    }
    if len(obstructed) == len(covered):
        # A binding on a whole schema keeps the tables that work.
        raise BindingError(next(iter(obstructed.values())))
    return _Covered(
        tuple(entry for entry in covered if entry.table not in obstructed),
        tuple(obstructed.values()),
    )


def _use_of(binding: Binding, found: Subscription) -> FilterUse:
    key = (found.schema, found.table, binding.filter, found.live)
    return FilterUse(binding.id, key, load_of(found.filter))


def _may_show(found: Subscription) -> bool:
    return simplify(found.rls) != FALSE


def _nothing_shown(subject: Subject, subscriptions: Iterable[Subscription]) -> str:
    """The hint for a developer whose subject may see no row."""
    tables = " and of ".join(sorted({found.table for found in subscriptions}))
    return (
        f"No policy shows rows of {tables} to this subject (role {subject.role}, user "
        f"{subject.user_id}): sign in, or add a policy. `manage.py explain_rls` tells more. "
        "(Said with DEBUG only.)"
    )


def _unknown(binding: Binding) -> str:
    """The hint for a table that is not published. It is the same for one that does not exist."""
    name = binding.table
    if name == ANY:
        return "No table of this schema is published; those of Django models are in 'public'."
    known = [entry.table for entry in registry.published()]
    # Names of tables are no longer.
    close = get_close_matches(name, known, n=1) if len(name) <= _LONGEST_NAME else []
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"No table of this name is published.{meant}"
