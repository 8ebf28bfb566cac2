"""One run: who reads and writes, what is measured meanwhile, and what is promised in the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

from benchmarks.programs import beside
from benchmarks.report import Promise, say
from benchmarks.soak import shown
from benchmarks.soak.ledger import Change, Ledger
from benchmarks.soak.level import Thirds
from benchmarks.soak.looks import looks
from benchmarks.soak.readers import (
    BEGUN,
    COMPARED,
    OF_SETS,
    RESUMED,
    Habits,
    Keeper,
    Listener,
    Look,
    Notes,
    Timed,
    Witness,
)
from benchmarks.soak.samples import Sample, stored, usage, usage_of_all
from benchmarks.soak.shown import Minute
from benchmarks.soak.table import Table
from tests.acceptance.support.base_databases import BaseDatabase
from tests.acceptance.support.deployment import Deployment
from tests.acceptance.support.server import SERVICE_KEY
from tests.acceptance.support.soak import Soak
from tests.support.waiting import auntil

LINE_SECONDS = 30.0
PATIENCE = 120.0
# Between comparisons of one reader each, which must not hold up the frames of the others.
COMPARE_SECONDS = 0.02
WRITERS, ROWS = 4, 500
# Seconds. Of the retention nobody is away longer than half.
STAYS, AWAY, LONGEST_AWAY = (15.0, 60.0), (0.0, 2.0), 40.0
LONGEST_PAUSE = 15.0
READERS = "readers (of the benchmark)"


class Run:
    """One run of a deployment that has started."""

    def __init__(
        self,
        world: Deployment,
        base: BaseDatabase,
        owners: list[int],
        arguments: argparse.Namespace,
    ) -> None:
        self._world = world
        self._base = base
        self._owners = owners
        self._arguments = arguments
        self._ledger = Ledger()
        self._table = Table()
        self.notes = Notes()
        self.samples: list[Sample] = []
        self.minutes: list[Minute] = []
        self.lateness: list[float] = []
        self.presence: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._timed: list[Timed] = []
        self._keepers: list[Keeper] = []
        self._took: list[float] = []
        self._writers_pid = 0
        self._began = time.monotonic()
        self._people(arguments.minutes / 60 + 1)

    def _people(self, hours: float) -> None:
        servers, notes = self._world.servers, self.notes
        everything = Look("witness", SERVICE_KEY, lambda traits: True)
        always = Habits(stays=(1e9, 1e9))
        self._timed = [
            Witness(self._ledger, self._table, everything, always, servers, 0, notes),
            Timed(everything, always, servers, 1, notes),
        ]
        self._listeners += self._timed
        bound = self._arguments.retention * 60 / 2
        long_away = bound / 8, min(LONGEST_AWAY, bound)
        for number, look in enumerate(looks(self._owners, hours)):
            away = long_away if number % 4 == 0 else AWAY
            habits = Habits(STAYS, away, anew=0.2 if number % 3 == 0 else 0.0)
            self._listeners.append(Listener(look, habits, servers, number, notes))
        slow = Look("a slow reader", SERVICE_KEY, lambda traits: True)
        for number in range(2):
            habits = Habits((60.0, 240.0), AWAY, pauses=(2.0, min(LONGEST_PAUSE, bound)))
            self._listeners.append(Listener(slow, habits, servers, number, notes))
        for number, look in enumerate(looks(self._owners[:2], hours)):
            habits = Habits((3.0, 25.0), (0.0, 3.0))
            given = look, habits, servers, number, notes, self._ledger, self._table
            self._keepers.append(Keeper(*given))

    # --- while it runs ----------------------------------------------------------------------------

    async def run(self) -> None:
        """The whole run, until all readers have what was written."""
        seconds = self._arguments.minutes * 60
        crowd = Soak(self._world.servers, clients=8, topics=2)
        async with beside("benchmarks.idle", str(seconds + 10 * PATIENCE)) as idle:
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(one.run()) for one in self._listeners]
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*(one.live.wait() for one in self._timed))
                keeping = [group.create_task(one.run()) for one in self._keepers]
                comparing = group.create_task(self._compare())
                self._began = time.monotonic()
                async with self._writing():
                    present = group.create_task(crowd.run(seconds, lambda: None, 2 * seconds))
                    await self._watch(seconds)
                    await present
                for task in keeping:
                    task.cancel()
                await self._settle()
                for task in (*reading, comparing):
                    task.cancel()
            try:
                await crowd.settle(PATIENCE)
            except AssertionError as error:
                self.notes.problem(f"presence: {error}")
            self.presence = crowd.counts
            await crowd.end()
            output, _ = await asyncio.wait_for(idle.communicate(b"\n"), PATIENCE)
            self.lateness = json.loads(output)

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """Writers beside the block, whose reports go to the ledger."""
        arguments = self._arguments.rate, WRITERS, ROWS, *self._owners
        with (self._world.folder / "writers.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "benchmarks.soak.writers", *map(str, arguments)),
                env={**self._world.env, "ROWCAST_SERVES": "nothing"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=2**24,
            )
        assert process.stdin and process.stdout
        self._writers_pid = process.pid
        listening = asyncio.create_task(self._note_written(process.stdout))
        try:
            yield
            process.stdin.close()
            await asyncio.wait_for(listening, PATIENCE)
            if await process.wait():
                self.notes.problem(f"the writers ended with {process.returncode}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _note_written(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            committing, changes = json.loads(line)
            for op, key, title in changes:
                self._ledger.wrote(Change(op, key, title), committing)

    async def _compare(self) -> None:
        """Compare what readers got with what was written, one reader at a time, until cancelled."""
        while True:
            for listener in self._listeners:
                for account in listener.accounts:
                    account.check(self._ledger)
                await asyncio.sleep(COMPARE_SECONDS)
            for timed in self._timed:
                self._took += timed.took(self._ledger)

    async def _watch(self, seconds: float) -> None:
        """Measure until so many seconds have passed; say a line now and then."""
        pause = min(10.0, max(2.0, seconds / 120))
        last = sample = await asyncio.to_thread(self._sample)
        written = received = 0
        self._took.clear()
        while sample.at < seconds:
            await asyncio.sleep(min(pause, max(0.1, seconds - sample.at)))
            sample = await asyncio.to_thread(self._sample)
            self.samples.append(sample)
            least = LINE_SECONDS - pause / 2
            if sample.at >= seconds:
                # The end has a line of its own, unless another one has just been.
                least = LINE_SECONDS / 2 if self.minutes else 0.0
            if sample.at - last.at < least:
                continue
            took, self._took = self._took, []
            more = self._ledger.written - written, self.received - received
            minute = await asyncio.to_thread(shown.between, last, sample, took, *more)
            self.minutes.append(minute)
            say(minute.line())
            last, written, received = sample, self._ledger.written, self.received

    def _sample(self) -> Sample:
        world = self._world
        parts = {
            **{f"server {n}": usage(one.pid) for n, one in enumerate(world.servers, 1)},
            **{f"tailer {n}": usage(one.pid) for n, one in enumerate(world.tailers, 1)},
            "worker": usage(world.workers[0].pid),
            "PostgreSQL": usage_of_all(self._base.postgres.pid),
            "Redis": usage(world.redis.pid),
        }
        own = {READERS: usage(os.getpid()), "writers (of the benchmark)": usage(self._writers_pid)}
        backlog, lag_ms = world.orm.numbering()
        at = time.monotonic() - self._began
        return Sample(at, parts, own, stored(world.orm.sql), backlog, lag_ms)

    # --- at the end -------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until all readers have what was written; what does not come is lost."""
        for listener in self._listeners:
            listener.stay()
        with contextlib.suppress(AssertionError):
            await auntil(self._all_have_all, patience=PATIENCE, every=0.5)
        for listener in self._listeners:
            listener.account.reached(self._ledger.horizon)
            for account in listener.accounts:
                account.check(self._ledger)

    def _all_have_all(self) -> bool:
        return not self._ledger.unseen and not any(
            listener.account.behind(self._ledger) for listener in self._listeners
        )

    @property
    def written(self) -> int:
        return self._ledger.written

    @property
    def received(self) -> int:
        of_listeners = sum(a.received for one in self._listeners for a in one.accounts)
        return of_listeners + self.notes.counts[OF_SETS]

    def promises(self, found: list[Thirds]) -> list[Promise]:
        unseen, unwritten = self._ledger.unseen, self._ledger.unwritten
        accounts = [a for one in self._listeners for a in one.accounts]
        lost, doubled = sum(a.lost for a in accounts), sum(a.doubled for a in accounts)
        examples = [
            f"{one.look.name}: {text}"
            for one in self._listeners
            for account in one.accounts
            for text in account.examples
        ]
        counts = self.notes.counts
        grew = [one for one in found if not one.level]
        tracebacks = self._world.logs.count("Traceback")
        tracebacks += (self._world.folder / "writers.log").read_text().count("Traceback")
        return [
            Promise(
                "what was committed arrives, and nothing else",
                f"{self._ledger.written:,} written, {len(unseen):,} lost, {len(unwritten):,} "
                f"never written {' '.join(map(str, [*unseen[:3], *unwritten[:3]]))}",
                self._ledger.written > 0 and not unseen and not unwritten,
            ),
            Promise(
                "each listener gets what it may see, once, in order, also when it resumes",
                f"{sum(a.received for a in accounts):,} received by {len(self._listeners)} "
                f"listeners over {counts[RESUMED]:,} resumes and {counts[BEGUN]:,} new "
                f"beginnings, {lost:,} lost, {doubled:,} doubled {'; '.join(examples[:5])}",
                counts[RESUMED] > 0 and not lost and not doubled,
            ),
            Promise(
                "each kept set is what the table holds",
                f"{counts[COMPARED]:,} sets compared",
                counts[COMPARED] > 0,
            ),
            Promise(
                "no refusal, no resync, no close but for slowness, presence as it is",
                f"{self.notes.found}: {'; '.join(self.notes.problems[:5]) or 'none'}",
                not self.notes.found,
            ),
            Promise("no traceback in any log", str(tracebacks), not tracebacks),
            Promise(
                "nothing grows after the warm-up",
                "; ".join(
                    f"{one.what}: {one.first:,.1f}, then {one.last:,.1f}, allowed {one.most:,.1f}"
                    for one in grew
                )
                or f"{len(found)} sizes are level"
                if found
                else "the run is too short to say",
                not grew,
            ),
        ]
