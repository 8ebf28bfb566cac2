"""Handlers in several workers, while writers write and everything around them fails.

Owns the processes and what happens to them, and compares in the end what the handlers made with the
log. The handlers are in `tests.torture.handlers`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.support.deployment import DeploymentOrm, Program
from tests.acceptance.support.final_checks import Row
from tests.acceptance.support.server import environment, migrate
from tests.support.postgres import Postgres
from tests.support.redis import Redis
from tests.support.waiting import until
from tests.torture import names

WRITERS = 16


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an item as the log has it."""

    seq: int
    key: str
    row: Row
    deleted: bool

    @property
    def poisoned(self) -> bool:
        return bool(self.row["value"] == names.POISON)


class Torture:
    """One database, workers and writers. Without `postgres` it is a SQLite file; with `redis` the
    workers are those of a deployment, `manage.py runworker realtime`, else `manage.py handlers
    run`."""

    def __init__(
        self,
        folder: Path,
        postgres: Postgres | None = None,
        redis: Redis | None = None,
        seed: int = 0,
        handlers: tuple[str, ...] = names.TORTURED,
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.redis = redis
        self.said: Counter[str] = Counter()
        self.chance = random.Random(seed)
        self.outside = folder / "outside.txt"
        self.env = {
            **environment(folder / "db.sqlite3"),
            "DJANGO_SETTINGS_MODULE": "tests.settings_torture",
            "TORTURE_FILE": str(self.outside),
            "TORTURE_HANDLERS": ",".join(handlers),
        }
        if postgres is not None:
            self.env["DATABASE_URL"] = postgres.url
        if redis is not None:
            self.env |= {"REDIS_URL": redis.url, "ROWCAST_LAYER": "pubsub"}
        self.handlers = handlers
        migrate(self.env)
        self.tailer = Program("tailer", ["manage.py", "tail_wal"], self.env, folder)
        self.workers: list[Program] = []
        self.writers: Program | None = None
        self.orm = DeploymentOrm(self.env)

    def start(self, workers: int = 3) -> None:
        self.tailer.start()
        self.tailer.until_says("Tailing")
        for _ in range(workers):
            self.work()

    def work(self) -> Program:
        """One more worker."""
        run = ["handlers", "run"] if self.redis is None else ["runworker", "realtime"]
        name = f"worker-{len(self.workers) + 1}"
        worker = Program(name, ["manage.py", *run], self.env, self.folder)
        self.workers.append(worker)
        worker.start()
        return worker

    def write(self, pause: float) -> None:
        """Start to write, until `finish_writing`."""
        command = ["-m", "tests.torture.writers", str(pause), str(WRITERS)]
        env = {**self.env, "ROWCAST_SERVES": "nothing"}
        self.writers = Program("writers", command, env, self.folder)
        self.writers.start()

    def finish_writing(self) -> None:
        assert self.writers is not None
        if code := self.writers.finish():
            raise RuntimeError(f"the writers ended with {code}:\n{self.writers.log}")

    # --- what happens to them ---------------------------------------------------------------------

    def disturb(self, longest_pause: float) -> None:
        """Something bad, by chance."""
        deeds: list[Callable[[], None]] = [self.kill, lambda: self.pause(longest_pause)] * 3
        if self.redis is not None:
            deeds.append(self.restart_redis)
        if self.postgres is not None:
            deeds += [self.restart_postgres, self.crash_postgres]
        self.chance.choice(deeds)()

    def kill(self) -> None:
        """Kill a worker; another one begins."""
        self.said["workers killed"] += 1
        self.chance.choice([worker for worker in self.workers if worker.running]).kill()
        self.work()

    def pause(self, longest: float) -> None:
        """Stop a worker for a while, in the middle of whatever it does."""
        self.said["workers paused"] += 1
        worker = self.chance.choice([worker for worker in self.workers if worker.running])
        worker.freeze()
        time.sleep(self.chance.uniform(longest / 5, longest))
        worker.thaw()

    def restart_redis(self) -> None:
        assert self.redis is not None
        self.said["restarts of Redis"] += 1
        self.redis.restart()

    def restart_postgres(self) -> None:
        assert self.postgres is not None
        self.said["restarts of PostgreSQL"] += 1
        self.postgres.restart()

    def crash_postgres(self) -> None:
        assert self.postgres is not None
        self.said["crashes of PostgreSQL"] += 1
        self.postgres.crash()
        self.postgres.start()

    # --- at the end -------------------------------------------------------------------------------

    def settle(self, patience: float) -> None:
        """Wait until everything that was written has its number and every handler has got there.
        Raises AssertionError, with what was said, when that does not come about."""
        # The connection may not have outlived its database.
        self.orm.reconnect()
        until(lambda: not self.orm.backlog(), "all entries numbered", patience=patience, every=0.1)
        _, head = self.orm.head()
        try:
            until(lambda: self._reached() >= head, patience=patience, every=0.2)
        except AssertionError:
            raise AssertionError(f"not at {head}: {self.states()}\n{self.logs}") from None

    def states(self) -> list[list[object]]:
        """Every row of the handlers' table."""
        found: list[list[object]] = self.orm.sql("SELECT * FROM realtime_handler ORDER BY name")
        return found

    def _reached(self) -> int:
        """The number up to which every handler is done."""
        found = dict(self.orm.sql("SELECT name, seq FROM realtime_handler"))
        return min(found.get(name) or 0 for name in self.handlers)

    def changes(self) -> list[Change]:
        rows = self.orm.sql(
            "SELECT n.seq, w.op, w.pk_text, w.old, w.new FROM realtime_wal_number AS n"
            " JOIN realtime_wal AS w ON w.id = n.entry_id"
            " JOIN realtime_wal_relation AS r ON r.id = w.relation_id"
            " WHERE r.table_name IN ('torture_item', 'public.torture_item') ORDER BY n.seq"
        )

        def image(value: str | Row) -> Row:
            return json.loads(value) if isinstance(value, str) else value

        return [
            Change(seq, key, image(old if op == "DELETE" else new), op == "DELETE")
            for seq, op, key, old, new in rows
        ]

    def check(self) -> Counter[str]:
        """Compare what the handlers made with the log. Returns what was counted; raises
        AssertionError where they differ."""
        changes = self.changes()
        assert changes
        all_ = [change.seq for change in changes]
        poisoned = {change.seq for change in changes if change.poisoned}
        steps: dict[str, list[tuple[int, int, str]]] = {name: [] for name in self.handlers}
        for handler, seq, group, delivery in self.orm.sql(
            'SELECT handler, seq, "group", delivery_id FROM torture_step ORDER BY id'
        ):
            steps[handler].append((seq, group, delivery))
        for handler in self.handlers:
            done = [seq for seq, _, _ in steps[handler]]
            wanted = all_
            if handler == names.POISONED:
                wanted = [seq for seq in all_ if seq not in poisoned]
            if handler == names.KEYED:
                # In order for each key.
                by_group: dict[int, list[int]] = {}
                for seq, group, _ in steps[handler]:
                    by_group.setdefault(group, []).append(seq)
                for group, seqs in by_group.items():
                    assert seqs == sorted(seqs), f"{handler}: not in order for {group}: {seqs}"
                done = sorted(done)
            assert done == wanted, f"{handler}: {_difference(done, wanted)}"
        self._check_tables(len(all_), poisoned)
        self._check_outside(all_, steps)
        return Counter(changes=len(changes), poisoned=len(poisoned), **self.said)

    def _check_tables(self, count: int, poisoned: set[int]) -> None:
        columns = 'id, "group", value, text'
        copies = self.orm.sql(f"SELECT {columns} FROM torture_copy ORDER BY id")
        assert copies == self.orm.sql(f"SELECT {columns} FROM torture_item ORDER BY id")
        assert self.orm.sql("SELECT name, count FROM torture_tally") == [[names.COUNTING, count]]
        letters = self.orm.dead_letters(names.POISONED)
        assert sorted(letters) == sorted(poisoned), _difference(letters, sorted(poisoned))

    def _check_outside(
        self, wanted: list[int], steps: dict[str, list[tuple[int, int, str]]]
    ) -> None:
        """What was done outside the database was done at least once, by one id however often."""
        ids: dict[tuple[str, int], set[str]] = {}
        for line in self.outside.read_text().splitlines():
            handler, seq, delivery = line.split()
            ids.setdefault((handler, int(seq)), set()).add(delivery)
        assert set(ids) == {(handler, seq) for handler in self.handlers for seq in wanted}
        assert all(len(found) == 1 for found in ids.values())
        for handler, found in steps.items():
            assert all(ids[handler, seq] == {delivery} for seq, _, delivery in found)

    @property
    def programs(self) -> list[Program]:
        more = [self.writers] if self.writers is not None else []
        return [self.tailer, *self.workers, *more]

    @property
    def logs(self) -> str:
        return "\n".join(f"--- {each.name}\n{each.log[-3000:]}" for each in self.programs)

    def end(self) -> None:
        with contextlib.ExitStack() as parts:
            for part in (self.orm, *self.programs):
                parts.callback(part.kill)


def _difference(done: list[int], wanted: list[int]) -> str:
    lost = sorted(set(wanted) - set(done))
    extra = sorted(set(done) - set(wanted))
    doubled = [seq for seq, times in Counter(done).items() if times > 1]
    out = [pair for pair in itertools.pairwise(done) if pair[0] > pair[1]]
    return f"lost {lost[:9]}, extra {extra[:9]}, doubled {doubled[:9]}, not in order {out[:9]}"


@contextlib.contextmanager
def tortured(torture: Torture) -> Iterator[Torture]:
    """Nothing of it is left after the block."""
    try:
        yield torture
    finally:
        torture.end()


def run(torture: Torture, seconds: float, every: float, longest_pause: float, pause: float) -> None:
    """Write for `seconds`, each writer with `pause` between its transactions, while something bad
    happens `every` so many seconds."""
    torture.start()
    torture.write(pause)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(every)
        torture.disturb(longest_pause)
    torture.finish_writing()
