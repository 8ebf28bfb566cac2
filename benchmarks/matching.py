"""Times one change with many subscriptions, from the log's entry to finished frames, without a
database.

The deliveries are checked in every case. Returns microseconds and prints nothing.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

MATCHES = 10
TEAMS_EACH = 10
CHANGES = 2_000
OPERATORS = {
    "eq": "score=eq.{n}",
    "in": "score=in.({n},{n}0)",
    "neq": "score=neq.{n}",
    "gt": "score=gt.{n}",
    "lte": "score=lte.{n}",
    "like": "title=like.a{n}%",
    "ilike": "title=ilike.a{n}%",
    "match": "title=match.^a{n}$",
    "not.in": "score=not.in.({n},{n}0)",
}
# The other subscriptions match nothing, so that their time is that of the search.
MATCHING_ALL = ("neq", "lte", "not.in")


def median_us(run: Callable[[Any], Any], cases: Iterable[Any]) -> float:
    """Microseconds of the median case, without garbage collection."""
    gc.collect()
    gc.disable()
    took = []
    try:
        for case in cases:
            began = time.perf_counter()
            run(case)
            took.append(time.perf_counter() - began)
    finally:
        gc.enable()
    return statistics.median(took) * 1e6


def change(**values: Any) -> Any:
    from auth_rls.predicates.kinds import Kind
    from realtime.event_log.event import DatabaseEvent, RowImage
    from realtime.wal.entry import ColumnInfo, Relation

    kinds = {"id": Kind.INT, "owner": Kind.INT, "team": Kind.INT, "score": Kind.INT}
    kinds["title"] = Kind.TEXT
    columns = tuple(ColumnInfo(name, kind.value, kind) for name, kind in kinds.items())
    relation = Relation("r", "public", "note", columns, ("id",))
    row = {"id": 1, "owner": 0, "team": 0, "score": -1, "title": "z", **values}
    return DatabaseEvent(1, 1, relation, "INSERT", None, RowImage(json.dumps(row).encode(), kinds))


def manager_of(predicates: Iterable[tuple[Any, Any]], members_of: Any = None) -> Any:
    """A subscription manager with one channel for each (filter, rls)."""
    from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex

    def failed(subscription: Any, error: Exception) -> None:
        raise error

    manager: Any = SubscriptionIndex(failed, *([members_of] if members_of else []))
    for number, (filter_, rls) in enumerate(predicates):
        item = Subscription(1, "public", "note", "*", filter_, rls)
        manager.set(number, AudienceKey(f"realtime:{number}", "2.0.0", (item,)))
    return manager


def checked(manager: Any, matches: int) -> Callable[[Any], None]:
    """Find the channels of a change and make their frames: all the work before sockets."""
    from realtime.subscriptions import frames

    def run(event: Any) -> None:
        deliveries = manager.match(event)
        assert len(deliveries) == matches
        made = frames.ChangeFrames(event)
        for delivery in deliveries:
            made.of(delivery)

    return run


def by_owner(count: int) -> float:
    from auth_rls.predicates.predicate import TRUE, Test

    owners = count // MATCHES
    manager = manager_of((TRUE, Test("owner", "exact", n % owners)) for n in range(count))
    pick = random.Random(1)
    events = [change(owner=pick.randrange(owners)) for _ in range(CHANGES)]
    return median_us(checked(manager, MATCHES), events)


def by_membership(count: int) -> float:
    from auth_rls.predicates.kinds import Kind
    from auth_rls.predicates.predicate import TRUE, Select, Test
    from auth_rls.sets.live_set import LiveSets

    lookups = LiveSets(lambda label: label)
    teams = count * TEAMS_EACH // MATCHES
    predicates = []
    for user in range(count):
        select = Select("Member", "team", Test("user", "exact", user), kind=Kind.INT)
        # In strides, so that every team has as many members and no two users the same teams.
        stride = max(teams // TEAMS_EACH, 1)
        mine: dict[object, int] = {(user + n * stride) % teams: 1 for n in range(TEAMS_EACH)}
        lookups.add(select, mine, True)
        predicates.append((TRUE, Test("team", "in", select)))
    manager = manager_of(predicates, lookups.members)
    pick = random.Random(1)
    events = [change(team=pick.randrange(teams)) for _ in range(CHANGES)]
    return median_us(checked(manager, MATCHES), events)


def by_operator(count: int) -> dict[str, float]:
    from auth_rls.predicates.kinds import Kind
    from auth_rls.predicates.predicate import TRUE
    from realtime.protocol.filters import parse_filter

    columns = {"score": Kind.INT, "title": Kind.TEXT}
    # No title begins like this and the score is below all, so that all operators match the same
    # subscriptions.
    event = change(score=-1, title="z")
    found = {}
    for name, text in OPERATORS.items():
        filters = [parse_filter(text.format(n=n), columns) for n in range(1, count + 1)]
        manager = manager_of((filter_, TRUE) for filter_ in filters)
        matches = count if name in MATCHING_ALL else 0
        events = [event] * (CHANGES if name in ("eq", "in") else 5)
        found[name] = median_us(checked(manager, matches), events)
    return found
