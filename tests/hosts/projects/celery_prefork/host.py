from __future__ import annotations

import os
import time

import programs
import tasks
from commands import Host as Usual
from desk.models import Ticket

PATIENCE = 60
CONCURRENCY = 2


class Host(Usual):
    """Renames by tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: set[int] = set()

    def prepare(self) -> None:
        super().prepare()
        options = ["--pool=prefork", f"--concurrency={CONCURRENCY}", "--loglevel=ERROR"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        # Celery's pool may hang at its end. A process that replaced another is forked by a thread
        # of the pool, and asks the system to be killed when "its parent" ends, which for Linux is
        # that thread. If it dies so while it waits for a task, the lock that it holds stays locked,
        # and the worker waits for that lock. So the worker is killed where it does not end; that
        # the forked processes end is seen in `own`.
        programs.start(
            "-m", "celery", "-A", "tasks", "worker", *options, ends=False, C_FORCE_ROOT="1"
        )

    def rename(self, old: str, new: str) -> None:
        process, seen, threads = tasks.rename.delay(old, new).get(timeout=PATIENCE)
        self.processes.add(process)
        assert (seen, threads) == (1, [])

    def own(self) -> None:
        # Several processes at once, and some that replaced others.
        for number in range(6):
            Ticket.objects.create(owner_id=self.owner, title=f"task {number}")
        asked = [tasks.rename.delay(f"task {n}", f"done {n}") for n in range(6)]
        self.processes |= {one.get(timeout=PATIENCE)[0] for one in asked}
        assert len(self.processes) > CONCURRENCY, self.processes
        # Those that were replaced have ended.
        deadline = time.monotonic() + PATIENCE
        while len(alive := list(filter(runs, self.processes))) > CONCURRENCY:
            assert time.monotonic() < deadline, alive
            time.sleep(0.05)

    def user(self, name: str) -> str:
        self.owner = super().user(name)
        return self.owner


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


host = Host()
