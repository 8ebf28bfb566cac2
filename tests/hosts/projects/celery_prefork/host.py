from __future__ import annotations

import atexit
import os
import subprocess
import sys

import tasks
from commands import Host as Usual
from desk.models import Ticket

PATIENCE = 60


class Host(Usual):
    """Renames by tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: set[int] = set()

    def prepare(self) -> None:
        super().prepare()
        options = ["--pool=prefork", "--concurrency=2", "--loglevel=ERROR"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tasks", "worker", *options],
            env={**os.environ, "C_FORCE_ROOT": "1"},
            stdout=subprocess.DEVNULL,
        )
        atexit.register(worker.wait, PATIENCE)
        atexit.register(worker.terminate)

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
        assert len(self.processes) > 2, self.processes

    def user(self, name: str) -> str:
        self.owner = super().user(name)
        return self.owner


host = Host()
