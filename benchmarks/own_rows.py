"""The cost of subscriptions that are each of a subject of its own: `python -m benchmarks.own_rows`.

The policy is `{"owner": "$user.id"}`. Measured are:

* memory: what a process grows by for each channel that joins, with its subject and its user, but
  without its socket; and joins a second;
* matching: one change that one subscription matches, with 100 to 100,000 subscriptions in the same
  run, alone and beside a process that streams through memory.

The database is a SQLite file of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from typing import Any

from benchmarks.chart import Panel, lines
from benchmarks.databases import django_on_sqlite
from benchmarks.live_changes import resident_mb
from benchmarks.matching import change, checked, manager_of, median_us
from benchmarks.memory_load import streaming
from benchmarks.report import Comparison, add_options, conclude, ratios, say, spread, table

SIZES = (100, 1_000, 10_000, 100_000)
CHANGES = 2_000
ALONE, BESIDE = "alone", "beside a process that streams through memory"
# As much more as a change may cost with the most subscriptions than with the fewest; kilobytes.
FLAT = 1.2
GOAL_KB = 3.5

Rounds = list[float]


async def memory(count: int) -> dict[str, Rounds]:
    """Kilobytes of a subscription, and joins a second."""
    from django.contrib.auth.models import Permission, User

    from auth_rls import Subject
    from auth_rls.models import Policy
    from benchmarks.feed import FakeChannel, Feed, joined
    from realtime.util.database_threads import close_connections, in_database_thread

    def fill() -> list[User]:
        Policy.objects.create(
            name="my own tasks",
            permission=Permission.objects.get(codename="view_task", content_type__app_label="demo"),
            audience="authenticated",
            using={"owner": "$user.id"},
        )
        User.objects.bulk_create([User(username=f"owner {n}") for n in range(count)], 1_000)
        return list(User.objects.order_by("pk"))

    users = await in_database_thread(fill)
    channels = [FakeChannel(number) for number in range(count)]
    feed = Feed()
    try:
        await feed.start()
        gc.collect()
        before, began = resident_mb(), time.perf_counter()
        for start in range(0, count, 500):
            some = slice(start, start + 500)
            subjects = [Subject.from_user(user) for user in users[some]]
            await joined(feed.dispatcher, subjects, lambda number: "", "demo_task", channels[some])
        took = time.perf_counter() - began
        gc.collect()
        grown = resident_mb() - before
        await feed.stop()
    finally:
        await close_connections()
    return {"a subscription, KB": [grown * 1_024 / count], "joins a second": [count / took]}


def matching(sizes: list[int], rounds: int) -> dict[str, dict[int, Rounds]]:
    """Microseconds of a change that one subscription matches."""
    from auth_rls.predicates.predicate import TRUE, Test

    made = {
        size: (
            manager_of((TRUE, Test("owner", "exact", n)) for n in range(size)),
            [change(owner=n * max(size // CHANGES, 1) % size) for n in range(CHANGES)],
        )
        for size in sizes
    }
    found: dict[str, dict[int, Rounds]] = {
        how: {size: [] for size in sizes} for how in (ALONE, BESIDE)
    }

    def once(how: str) -> None:
        for size, (manager, events) in made.items():
            found[how][size].append(median_us(checked(manager, 1), events))

    for _ in range(rounds):
        once(ALONE)
        with streaming():
            once(BESIDE)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subscriptions", type=int, default=SIZES[-1], help="at most")
    add_options(parser, rounds=3)
    arguments = parser.parse_args()
    most = arguments.subscriptions
    if most < SIZES[0]:
        parser.error(f"--subscriptions must be at least {SIZES[0]}")
    with django_on_sqlite():
        # First, before anything else has grown the process.
        found: dict[str, Any] = {"memory": asyncio.run(memory(most))}
    sizes = [size for size in SIZES if size < most] + [most]
    took = found["matching_us"] = matching(sizes, arguments.rounds)
    say(table([f"{most:,} subscriptions", ""], [[w, spread(v, 2)] for w, v in _rows(found)]))
    head = ["one change that one matches, µs", *(f"{size:,}" for size in sizes)]
    rows = [[how, *(spread(by[size], 1) for size in sizes)] for how, by in took.items()]
    say("\n" + table(head, rows))
    few, many = sizes[0], sizes[-1]
    compared = [
        Comparison(
            f"time a change, {how}", f"{many:,}", f"{few:,}", ratios(by[many], by[few]), FLAT
        )
        for how, by in took.items()
        if few < many
    ]
    conclude(arguments, found, compared, _drawn(took))


def _rows(found: dict[str, Any]) -> list[tuple[str, Rounds]]:
    return [
        (f"{what} (goal {GOAL_KB})" if "KB" in what else what, values)
        for what, values in found["memory"].items()
    ]


def _drawn(took: dict[str, dict[int, Rounds]]) -> list[Panel]:
    middle = {
        how: {float(size): sorted(values)[len(values) // 2] for size, values in by.items()}
        for how, by in took.items()
    }
    title = "One change that one subscription matches"
    return [lines(title, middle, "subscriptions", "microseconds a change", ours=ALONE)]


if __name__ == "__main__":
    main()
