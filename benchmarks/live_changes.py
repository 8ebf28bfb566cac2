"""Times a dispatcher with many channels: memberships that come and go, and the most costly filters.

On the database that Django is set up for, through benchmarks/feed.py. The deliveries are checked.
Returns figures and prints nothing.
"""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import statistics
import time

from benchmarks.feed import Feed, joined, sql

TEAMS_OF_A_SUBJECT = 50
MOVED, REBOUND = "one membership, ms", "every channel bound anew, ms"
COMES = (
    "INSERT INTO demo_membership (user_id, team_id, role)"
    " SELECT {user}, id, 'member' FROM demo_team WHERE name = 'the new one'"
)
GOES = (
    "DELETE FROM demo_membership WHERE user_id = {user} AND team_id IN"
    " (SELECT id FROM demo_team WHERE name = 'the new one')"
)
MESSAGE = (
    "INSERT INTO demo_message (author_id, team_id, body, is_public, created_at)"
    " SELECT (SELECT MIN(id) FROM auth_user), id, 'x', 0, '2025-01-01'"
    " FROM demo_team WHERE name = 'the new one'"
)


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def fill(count: int, each: int = TEAMS_OF_A_SUBJECT) -> None:
    """Users, teams and memberships, inserted before any channel joins."""
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
        Membership(user_id=user, team_id=keys[(index * 7 + n * (teams // each)) % teams])
        for index, user in enumerate(User.objects.values_list("pk", flat=True))
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


async def own_rows(count: int, rounds: int) -> dict[str, list[float]]:
    """Joins a second of so many users whom the process does not know, each of whom listens to the
    rows that are their own, as the holder of a permission."""
    from django.contrib.auth.models import Group, Permission, User

    from auth_rls import Subject
    from auth_rls.models import Policy
    from realtime.util.database_threads import in_database_thread

    def enter() -> list[User]:
        permission = Permission.objects.get(codename="view_team", content_type__app_label="demo")
        Policy.objects.create(
            name="teams of my name", permission=permission, using={"name": "$user.username"}
        )
        group = Group.objects.create(name="owners")
        group.permissions.add(permission)
        names = [User(username=f"owner {number}") for number in range(count)]
        users = User.objects.bulk_create(names, 1_000)
        through = User.groups.through
        links = [through(user_id=user.pk, group_id=group.pk) for user in users]
        through.objects.bulk_create(links, 1_000)
        return users

    subjects = [Subject.from_user(user) for user in await in_database_thread(enter)]
    found: list[float] = []
    for _ in range(rounds):
        feed = Feed()
        await feed.start()
        gc.collect()
        began = time.perf_counter()
        await joined(feed.dispatcher, subjects, lambda number: "", "demo_team")
        found.append(count / (time.perf_counter() - began))
        await feed.stop()
    return {"joins a second": found}


async def memberships(count: int, rounds: int) -> dict[str, list[float]]:
    """The times of one membership that comes or goes, and of binding every channel anew, in
    alternation."""
    from django.contrib.auth.models import User

    from auth_rls import Subject
    from realtime.subscriptions.access_watch import RebindScope
    from realtime.util.database_threads import in_database_thread

    users = await in_database_thread(
        lambda: {user.pk: user for user in User.objects.filter(username__startswith="member ")}
    )
    subjects = [Subject.from_user(user) for user in users.values()]
    feed = Feed()
    await feed.start()
    gc.collect()
    before, began = resident_mb(), time.perf_counter()
    channels = await joined(feed.dispatcher, subjects, lambda number: "")
    joins = time.perf_counter() - began
    gc.collect()
    memory = resident_mb() - before
    by_user = dict(zip(users, channels, strict=True))

    pick = random.Random(1)
    changed = pick.sample(list(users), min(count, 1_000))
    everything = RebindScope(everybody=True, capture_gap=True)
    found: dict[str, list[float]] = {
        "joins a second": [count / joins],
        "memory, MB": [memory],
    }
    for number in range(rounds):
        took = []
        for text in (COMES, GOES):
            for start in range(0, len(changed), 500):
                some = changed[start : start + 500]
                for user in some:
                    await sql(text.format(user=user))
                took.append(await feed.hand_out() / len(some))
            await sql(MESSAGE)
            await feed.hand_out()
        # The message was delivered once to each new member, and to no one after they had left.
        seen = {user: channel.frames for user, channel in by_user.items() if channel.frames}
        assert seen == dict.fromkeys(changed, number + 1), seen
        works: list[float] = []

        async def heartbeat(works: list[float] = works) -> None:
            while True:
                worked = time.thread_time()
                await asyncio.sleep(0.001)
                works.append(time.thread_time() - worked)

        beating = asyncio.create_task(heartbeat())
        began = time.perf_counter()
        await feed.dispatcher.subscriptions.rebinding.rebind(everything)
        rebound = time.perf_counter() - began
        beating.cancel()
        found.setdefault(MOVED, []).append(statistics.median(took) * 1e3)
        found.setdefault(REBOUND, []).append(rebound * 1e3)
        found.setdefault("longest work meanwhile, ms", []).append(max(works) * 1e3)
    await feed.stop()
    return found


async def worst_case(count: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a change with filters that no value finds and none of which matches: figures
    per round."""
    from auth_rls import Subject

    feed = Feed()
    await feed.start()
    channels = await joined(
        feed.dispatcher, [Subject.service()] * count, lambda number: f"id=gt.{10**9 + number}"
    )
    # How long the heartbeat waited, and how much of that time the loop's thread worked.
    stalls: list[float] = []
    works: list[float] = []

    async def heartbeat() -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - began - 0.001)
            works.append(time.thread_time() - worked)

    found: dict[str, list[float]] = {}
    gc.collect()
    # As a server does, whose full collections look only at what came since.
    gc.freeze()
    beating = asyncio.create_task(heartbeat())
    for _ in range(rounds):
        stalls.clear()
        await asyncio.sleep(1.0)
        at_rest = max(stalls)
        stalls.clear()
        works.clear()
        took = []
        for _ in range(10):
            await sql(
                "INSERT INTO demo_message (author_id, body, is_public, created_at)"
                " SELECT MIN(id), 'x', 0, '2025-01-01' FROM auth_user"
            )
            took.append(await feed.hand_out())
        for name, seconds in (
            ("one change, ms", statistics.median(took)),
            ("longest work, ms", max(works)),
            ("longest wait, ms", max(stalls)),
            ("longest wait at rest, ms", at_rest),
        ):
            found.setdefault(name, []).append(seconds * 1e3)
    beating.cancel()
    gc.unfreeze()
    assert not any(channel.frames for channel in channels)
    await feed.stop()
    return found
