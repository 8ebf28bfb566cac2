"""What row-level security costs as subscriptions grow: `python -m benchmarks.rls`.

* matching: one change against 100 to 100,000 subscriptions, ten of which it matches every time: by
  owner (`owner_id == $user.id`) and by membership (`team_id` in a select of the subject's teams).
* operators: one change against 10,000 subscriptions whose filters all differ, by operator. Those
  that name a value are found by it, the others are looked at one by one.
* worst case: 100,000 filters that no value finds, through the dispatcher, with a heartbeat beside
  it: how long one change takes, and how long the heartbeat had to wait.
* memberships: 10,000 subjects of 50 teams each, from a database: memory, and what one membership
  inserted or deleted costs. The named other in the same run is to bind every subscription anew and
  read every set again, which is what a policy that is edited still costs.

What is delivered is checked in every part. The database is a SQLite file of its own. Prints a
table and writes JSON beside it with --json; --scale 0.1 runs a tenth of everything.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

MATCHES = 10
TEAMS_EACH = 10
SIZES = (100, 1_000, 10_000, 100_000)
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


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def median_us(run: Callable[[Any], Any], cases: Iterable[Any]) -> float:
    """Microseconds of the median case; the collector is kept out of it."""
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


# --- matching, without a database ---------------------------------------------------------------


def change(**values: Any) -> Any:
    from auth_rls.kinds import Kind
    from realtime.event import ColumnInfo, DatabaseEvent, Relation, Row

    kinds = {"id": Kind.INT, "owner": Kind.INT, "team": Kind.INT, "score": Kind.INT}
    kinds["title"] = Kind.TEXT
    columns = tuple(ColumnInfo(name, kind.value, kind) for name, kind in kinds.items())
    relation = Relation("r", "public", "note", columns, ("id",))
    row = {"id": 1, "owner": 0, "team": 0, "score": -1, "title": "z", **values}
    return DatabaseEvent(1, 1, relation, "INSERT", None, Row(json.dumps(row).encode(), kinds))


def manager_of(predicates: Iterable[tuple[Any, Any]], members_of: Any = None) -> Any:
    """A subscription manager with one channel for each (filter, rls)."""
    from realtime.subscription import AudienceKey, Subscription, SubscriptionManager

    def failed(subscription: Any, error: Exception) -> None:
        raise error

    manager: Any = SubscriptionManager(failed, *([members_of] if members_of else []))
    for number, (filter_, rls) in enumerate(predicates):
        item = Subscription(1, "public", "note", "*", filter_, rls)
        manager.set(number, AudienceKey(f"realtime:{number}", "2.0.0", (item,)))
    return manager


def checked(manager: Any, matches: int) -> Callable[[Any], None]:
    """Finds whom a change concerns and makes their frames: all there is to do before sockets."""
    from realtime import frames

    def run(event: Any) -> None:
        deliveries = manager.match(event)
        assert len(deliveries) == matches
        for delivery in deliveries:
            frames.of_change(event, delivery)

    return run


def by_owner(count: int) -> float:
    from auth_rls.predicate import TRUE, Test

    owners = count // MATCHES
    manager = manager_of((TRUE, Test("owner", "exact", n % owners)) for n in range(count))
    pick = random.Random(1)
    events = [change(owner=pick.randrange(owners)) for _ in range(CHANGES)]
    return median_us(checked(manager, MATCHES), events)


def by_membership(count: int) -> float:
    from auth_rls.kinds import Kind
    from auth_rls.lookups import Lookups
    from auth_rls.predicate import TRUE, Select, Test

    lookups = Lookups(lambda label: label)
    teams = count * TEAMS_EACH // MATCHES
    predicates = []
    for user in range(count):
        select = Select("Member", "team", Test("user", "exact", user), kind=Kind.INT)
        # Strides apart, so that every team has as many members and no two users the same teams.
        stride = max(teams // TEAMS_EACH, 1)
        mine = {(user + n * stride) % teams: 1 for n in range(TEAMS_EACH)}
        lookups.add(select, mine, True)
        predicates.append((TRUE, Test("team", "in", select)))
    manager = manager_of(predicates, lookups.members)
    pick = random.Random(1)
    events = [change(team=pick.randrange(teams)) for _ in range(CHANGES)]
    return median_us(checked(manager, MATCHES), events)


def by_operator(count: int) -> dict[str, float]:
    from auth_rls.kinds import Kind
    from auth_rls.predicate import TRUE
    from realtime.filters import parse_filter

    columns = {"score": Kind.INT, "title": Kind.TEXT}
    # No title begins so, and the score is below all: what is matched is the same for all of a kind.
    event = change(score=-1, title="z")
    found = {}
    for name, text in OPERATORS.items():
        filters = [parse_filter(text.format(n=n), columns) for n in range(1, count + 1)]
        manager = manager_of((filter_, TRUE) for filter_ in filters)
        matches = count if name in ("neq", "lte", "not.in") else 0
        events = [event] * (CHANGES if name in ("eq", "in") else 5)
        found[name] = median_us(checked(manager, matches), events)
    return found


# --- through the dispatcher ---------------------------------------------------------------------


class Port:
    """A channel that counts what it is sent."""

    def __init__(self, number: int) -> None:
        from realtime.protocol import Version

        self.id = str(number)
        self.topic = f"realtime:{number}"
        self.version = Version.V2
        self.frames = 0
        # It takes its frames itself, each by itself.
        self.outlet, self.direct = self, None

    def put(self, frame: object) -> None:
        self.frames += 1

    async def writable(self) -> None:
        return

    def resubscribed(self) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a channel of the benchmark was told {name}")


class Feed:
    """A dispatcher that is handed what is committed, batch by batch, as from the bus. A channel on
    another table tells when all of a batch is done."""

    def __init__(self) -> None:
        from realtime.dispatcher import Dispatcher

        self.dispatcher = Dispatcher("default", 10_000, None)
        self.last = Port(-1)

    async def start(self) -> None:
        from auth_rls import Subject
        from realtime.joins import parse_join
        from realtime.pool import in_database_thread
        from realtime.snapshot import Request

        await in_database_thread(call_command, "tail_wal", once=True, verbosity=0)
        await self.dispatcher.start()
        table = {"event": "*", "schema": "public", "table": "demo_team"}
        bindings = parse_join({"config": {"postgres_changes": [table]}}).bindings
        asked = Request(Subject.service(), bindings)
        await self.dispatcher.subscribers.add(self.last, asked)  # type: ignore[arg-type]

    async def hand_out(self) -> float:
        """Number what is committed and hand it out; seconds of the latter."""
        from django.db import connections

        from realtime.bus import Batch
        from realtime.event_log import Relations, read_rows
        from realtime.pool import in_database_thread
        from realtime.wal import sequencer

        here = self.dispatcher.position
        done = self.last.frames
        await sql(
            "UPDATE demo_team SET name = name || '.' WHERE id = (SELECT MIN(id) FROM demo_team)"
        )

        def read() -> Any:
            while sequencer.number(connections["default"], 1_000):
                pass
            head = sequencer.read_head(connections["default"])
            relations = Relations()
            rows = read_rows("default", relations, here.seq, head.seq)
            return [relations[id_] for id_ in {row.relation_id for row in rows}], rows

        relations, rows = await in_database_thread(read)
        began = time.perf_counter()
        self.dispatcher.receive(Batch(here.epoch, here.seq, rows, relations))
        while self.last.frames == done:
            await asyncio.sleep(0)
        return time.perf_counter() - began

    async def stop(self) -> None:
        await self.dispatcher.stop()


async def sql(statement: str, *parameters: Any) -> None:
    from django.db import connection

    from realtime.pool import in_database_thread

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    await in_database_thread(run)


async def joined(feed: Feed, subjects: list[Any], filters: Callable[[int], str]) -> list[Port]:
    from realtime.joins import parse_join
    from realtime.snapshot import Request

    ports = [Port(number) for number in range(len(subjects))]

    async def join(port: Port, subject: Any) -> None:
        table = {"event": "*", "schema": "public", "table": "demo_message"}
        table["filter"] = filters(int(port.id))
        bindings = parse_join({"config": {"postgres_changes": [table]}}).bindings
        asked = Request(subject, bindings)
        answer: Any = await feed.dispatcher.subscribers.add(port, asked)  # type: ignore[arg-type]
        assert answer.problems == (None,), answer

    for start in range(0, len(ports), 500):
        some = slice(start, start + 500)
        await asyncio.gather(*map(join, ports[some], subjects[some]))
    return ports


async def worst_case(count: int) -> dict[str, float]:
    from auth_rls import Subject

    feed = Feed()
    await feed.start()
    ports = await joined(
        feed, [Subject.service()] * count, lambda number: f"id=gt.{10**9 + number}"
    )
    # How long the heartbeat waited, and how much of that the loop's thread was at work.
    stalls: list[float] = []
    works: list[float] = []

    async def heartbeat() -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - began - 0.001)
            works.append(time.thread_time() - worked)

    took = []
    gc.collect()
    beating = asyncio.create_task(heartbeat())
    await asyncio.sleep(1.0)
    idle = max(stalls)
    stalls.clear()
    works.clear()
    for _ in range(10):
        await sql(
            "INSERT INTO demo_message (author_id, body, is_public, created_at)"
            " SELECT MIN(id), 'x', 0, '2025-01-01' FROM auth_user"
        )
        took.append(await feed.hand_out())
    beating.cancel()
    assert not any(port.frames for port in ports)
    await feed.stop()
    return {
        "subscriptions": count,
        "one_change_ms": statistics.median(took) * 1e3,
        "longest_work_ms": max(works) * 1e3,
        "longest_wait_ms": max(stalls) * 1e3,
        "same_at_rest_ms": idle * 1e3,
    }


async def memberships(count: int, each: int) -> dict[str, float]:
    from django.contrib.auth.models import User

    from auth_rls import Subject
    from realtime.plan import Scope
    from realtime.pool import in_database_thread

    users = await in_database_thread(
        lambda: {user.pk: user for user in User.objects.filter(username__startswith="member ")}
    )
    subjects = [Subject.from_user(user) for user in users.values()]
    feed = Feed()
    await feed.start()
    gc.collect()
    before, began = resident_mb(), time.perf_counter()
    ports = await joined(feed, subjects, lambda number: "")
    joins = time.perf_counter() - began
    gc.collect()
    memory = resident_mb() - before
    by_user = dict(zip(users, ports, strict=True))

    pick = random.Random(1)
    changed = pick.sample(list(users), min(count, 1_000))
    took = []
    for text in (
        "INSERT INTO demo_membership (user_id, team_id, role)"
        " SELECT {user}, id, 'member' FROM demo_team WHERE name = 'the new one'",
        "DELETE FROM demo_membership WHERE user_id = {user} AND team_id IN"
        " (SELECT id FROM demo_team WHERE name = 'the new one')",
    ):
        for start in range(0, len(changed), 500):
            some = changed[start : start + 500]
            for user in some:
                await sql(text.format(user=user))
            took.append(await feed.hand_out() / len(some))
        await sql(
            "INSERT INTO demo_message (author_id, team_id, body, is_public, created_at)"
            " SELECT (SELECT MIN(id) FROM auth_user), id, 'x', 0, '2025-01-01'"
            " FROM demo_team WHERE name = 'the new one'"
        )
        await feed.hand_out()
    # Shown to all who had joined, once, and to nobody when they had left.
    seen = {user for user, port in by_user.items() if port.frames}
    assert seen == set(changed) and all(by_user[user].frames == 1 for user in changed)

    everything = Scope(everybody=True, lapsed=True)
    rebinds = []
    for _ in range(3):
        began = time.perf_counter()
        await feed.dispatcher.subscribers.rebind(everything)
        rebinds.append(time.perf_counter() - began)
    await feed.stop()
    moved, rebound = statistics.median(took), statistics.median(rebinds)
    return {
        "subjects": count,
        "memberships_each": each,
        "joins_per_second": count / joins,
        "memory_mb": memory,
        "one_change_us": moved * 1e6,
        "rebind_ms": rebound * 1e3,
        "times_cheaper": rebound / moved,
    }


def fill(count: int, each: int) -> None:
    """Users, teams and memberships, put in as by an import before anything listened."""
    from django.contrib.auth.models import Permission, User
    from django.db import connection

    from auth_rls.models import Policy
    from demo.models import Membership, Team

    User.objects.bulk_create([User(username=f"member {n}") for n in range(count)], 1_000)
    teams = max(count // 10, each)
    Team.objects.bulk_create([Team(name=f"team {n}") for n in range(teams)], 1_000)
    Team.objects.create(name="the new one")
    keys = list(Team.objects.exclude(name="the new one").values_list("pk", flat=True))
    rows = (
        Membership(user_id=user, team_id=keys[(place * 7 + n * (teams // each)) % teams])
        for place, user in enumerate(User.objects.values_list("pk", flat=True))
        for n in range(each)
    )
    Membership.objects.bulk_create(rows, 5_000)
    mine = {"select": "team", "from": "demo.Membership", "where": {"user": "$user.id"}}
    Policy.objects.create(
        name="messages of my teams",
        permission=Permission.objects.get(codename="view_message", content_type__app_label="demo"),
        audience="authenticated",
        using={"team__in": mine},
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM realtime_wal")


async def through_the_dispatcher(scale: float) -> dict[str, Any]:
    from realtime.pool import close_connections

    subjects = max(int(10_000 * scale), 100)
    try:
        return {
            "memberships": await memberships(subjects, 50),
            "worst_case": await worst_case(max(int(100_000 * scale), 100)),
        }
    finally:
        await close_connections()


def measure(scale: float) -> dict[str, Any]:
    sizes = [size for size in SIZES if size <= 100_000 * scale] or [100]
    result: dict[str, Any] = {
        "matching_us": {
            name: {size: run(size) for size in sizes}
            for name, run in (("owner", by_owner), ("membership", by_membership))
        },
        "operators_us": by_operator(max(int(10_000 * scale), 100)),
    }
    gc.collect()
    fill(max(int(10_000 * scale), 100), 50)
    return result | asyncio.run(through_the_dispatcher(scale))


def show(result: dict[str, Any]) -> None:
    def line(text: str) -> None:
        sys.stdout.write(text + "\n")

    line(f"one change that {MATCHES} match, microseconds, by subscriptions")
    for name, times in result["matching_us"].items():
        line(f"  {name:12}" + "".join(f"{size:>9,}: {took:7.1f}" for size, took in times.items()))
    line("one change against differing filters, microseconds, by operator")
    line("  " + "  ".join(f"{name} {took:,.0f}" for name, took in result["operators_us"].items()))
    for name in ("worst_case", "memberships"):
        line(name.replace("_", " "))
        for what, value in result[name].items():
            line(f"  {what.replace('_', ' '):22}{value:14,.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be more than 0 and at most 1")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "realtime_project.settings")
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        os.environ.pop("DATABASE_URL", None)
        os.environ["SQLITE_PATH"] = str(Path(folder) / "bench.sqlite3")
        django.setup()
        call_command("migrate", verbosity=0, skip_checks=True)
        result = measure(arguments.scale)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
