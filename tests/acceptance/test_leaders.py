"""Several `manage.py tail_wal` on one database: one leads, and whatever happens to it, one leads.

Real processes, killed and paused. The seconds named here are promises, so they are measured.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support.base_databases import BaseDatabase, base_database
from tests.acceptance.support.deployment import DeploymentOrm, Program
from tests.acceptance.support.server import ROOT, copy_database, environment
from tests.support.python import run
from tests.support.waiting import until

KILLED_SECONDS = 5.0
PAUSED_SECONDS = 10.0
# A hand-over does not wait for a lease (3 s) to run out.
HANDED_OVER_SECONDS = 2.0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[BaseDatabase]:
    with base_database() as made:
        yield made


class Scene:
    """A database, the ORM that writes to it, and tailers."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.orm = DeploymentOrm(env)
        self.writer = DeploymentOrm(env)
        self._names = itertools.count(1)
        self.tailers: list[Program] = []

    def tailer(self, *options: str) -> Program:
        name = f"tail-{next(self._names)}"
        command = ["manage.py", "tail_wal", "--skip-checks", *options]
        self.tailers.append(Program(name, command, self.env, self.folder))
        self.tailers[-1].start()
        return self.tailers[-1]

    def pair(self) -> tuple[Program, Program]:
        """A leader and a standby."""
        leader = self.tailer()
        leader.until_says("Leading.")
        standby = self.tailer()
        standby.until_says("Standing by;")
        return leader, standby

    def once(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["manage.py", "tail_wal", "--once", "--skip-checks", *options]
        return run(command, cwd=ROOT, env=self.env, timeout=60)

    def numbered(self, count: int) -> None:
        """Returns when so many notes have their number and nothing is left."""
        until(lambda: len(self.orm.log()) == count and not self.orm.backlog(), f"{count} numbers")

    def check(self, notes: int) -> None:
        """Every change has one number, none is missing, and each writer's order is kept."""
        numbers = self.orm.numbers()
        assert sorted(numbers) == list(range(1, self.orm.head()[1] + 1))
        entries = self.orm.log()
        assert len(entries) == len({key for *_, key in entries}) == notes
        title = dict(self.orm.sql("SELECT id, title FROM zoo_note"))
        order = [int(title[int(key)].partition(":")[2]) for *_, key in entries]
        assert order == sorted(order)

    def end(self) -> None:
        for tailer in self.tailers:
            tailer.kill()
        self.orm.kill()
        self.writer.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    env = environment(tmp_path / "db.sqlite3")
    env.pop("DATABASE_URL", None)
    if request.param == "postgresql":
        env["DATABASE_URL"] = request.getfixturevalue("postgresql").database()
    else:
        copy_database(request.getfixturevalue("template"), tmp_path / "db.sqlite3")
    made = Scene(tmp_path, env)
    try:
        yield made
    finally:
        made.end()


on_postgresql = pytest.mark.parametrize("scene", ["postgresql"], indirect=True)


def seconds(deed: Callable[[], Any], condition: Callable[[], object]) -> float:
    """How long the condition took to come true from just before the deed."""
    began = time.monotonic()
    deed()
    until(condition, "what the deed leads to")
    return time.monotonic() - began


def write(scene: Scene, count: int) -> None:
    """Starts a writer of so many notes, and returns when it is at work."""
    owner = scene.orm.user("owner")
    scene.writer.begin("write_notes", 0, count, [owner], per_transaction=3)
    until(lambda: scene.orm.log(), "the first numbers")


def test_a_standby_leads_soon_after_the_leader_was_killed(scene: Scene) -> None:
    leader, standby = scene.pair()
    write(scene, 3_000)
    # Its parent has not asked for its end, so only its lease says that it is gone.
    took = seconds(
        lambda: os.kill(leader.pid, signal.SIGKILL), lambda: standby.log.count("Leading.")
    )
    assert took < KILLED_SECONDS
    scene.writer.finish()
    scene.numbered(3_000)
    scene.check(3_000)


def test_a_leader_that_is_known_to_have_ended_is_replaced_without_delay(scene: Scene) -> None:
    leader, standby = scene.pair()
    owner = scene.orm.user("owner")
    leader.kill()
    took = seconds(
        lambda: scene.writer.write_notes(0, 1, [owner]), lambda: len(scene.orm.log()) == 1
    )
    assert took < HANDED_OVER_SECONDS
    assert standby.log.count("Leading.") == 1


@on_postgresql
def test_a_paused_leader_is_replaced_and_numbers_nothing_when_it_wakes(scene: Scene) -> None:
    leader, standby = scene.pair()
    write(scene, 3_000)
    took = seconds(leader.freeze, lambda: standby.log.count("Leading."))
    assert took < PAUSED_SECONDS
    scene.writer.finish()
    scene.numbered(3_000)
    before = scene.orm.sql("SELECT term, leader FROM realtime_head")
    leader.thaw()
    leader.until_says("Standing by;")
    assert scene.orm.sql("SELECT term, leader FROM realtime_head") == before
    scene.check(3_000)
    # It is as good a standby as any.
    standby.stop()
    leader.until_says("Leading.", 2)


@pytest.mark.parametrize("scene", ["sqlite"], indirect=True)
def test_a_leader_paused_while_idle_is_replaced_when_there_is_something_to_number(
    scene: Scene,
) -> None:
    # Not among writes: who is stopped inside a transaction on SQLite stops every writer with it.
    leader, standby = scene.pair()
    owner = scene.orm.user("owner")
    scene.numbered(0)
    leader.freeze()
    took = seconds(
        lambda: scene.writer.write_notes(0, 10, [owner]), lambda: len(scene.orm.log()) == 10
    )
    assert took < PAUSED_SECONDS
    leader.thaw()
    leader.until_says("Standing by;")
    assert standby.log.count("Leading.") == 1
    scene.check(10)


def test_a_leader_that_is_asked_to_end_hands_over_at_once(scene: Scene) -> None:
    leader, standby = scene.pair()
    write(scene, 900)
    scene.writer.finish()
    scene.numbered(900)
    took = seconds(
        lambda: os.kill(leader.pid, signal.SIGTERM), lambda: standby.log.count("Leading.")
    )
    assert took < HANDED_OVER_SECONDS
    until(lambda: not leader.running, "the end")
    assert leader.stop() == 0
    assert leader.log.rstrip().endswith("Stopped.")
    scene.check(900)


def test_once_drains_beside_a_leader_and_says_so(scene: Scene) -> None:
    leader, _ = scene.pair()
    owner = scene.orm.user("owner")
    scene.numbered(0)
    leader.freeze()
    scene.writer.write_notes(0, 10, [owner])
    done = scene.once()
    leader.thaw()
    assert done.returncode == 0, done.stderr
    assert scene.orm.backlog() == 0
    scene.check(10)
    assert "Numbered " in done.stdout
    assert scene.once("--verbosity", "0").stdout == ""


def test_silence_is_kept_when_asked_for(scene: Scene) -> None:
    tailer = scene.tailer("--verbosity", "0")
    until(lambda: scene.orm.sql("SELECT leader FROM realtime_head WHERE leader <> ''"), "a leader")
    assert tailer.stop() == 0
    assert "Leading." not in tailer.log
    assert "Stopped" not in tailer.log


def lines(tailer: Program, words: str) -> int:
    return sum(words in line for line in tailer.log.splitlines())


@on_postgresql
def test_a_server_that_is_not_there_yet_is_waited_for_with_one_line_for_each_change(
    scene: Scene, postgresql: BaseDatabase
) -> None:
    postgresql.postgres.stop()
    try:
        tailer = scene.tailer()
        tailer.until_says("the log cannot be read")
    finally:
        postgresql.postgres.start()
    tailer.until_says("the log can be read again")
    tailer.until_says("Leading.")
    postgresql.postgres.restart()
    tailer.until_says("the log can be read again", 2)
    scene.orm.kill()
    scene.orm = DeploymentOrm(scene.env)
    owner = scene.orm.user("owner")
    scene.orm.write_notes(0, 10, [owner])
    scene.numbered(10)
    assert lines(tailer, "the log cannot be read") == 2
    assert lines(tailer, "the log can be read again") == 2


@pytest.mark.parametrize("scene", ["sqlite"], indirect=True)
def test_a_file_that_is_not_there_yet_is_waited_for_with_one_line_for_each_change(
    scene: Scene, template: Path
) -> None:
    path = scene.folder / "later.sqlite3"
    scene.env["SQLITE_PATH"] = str(path)
    tailer = scene.tailer()
    tailer.until_says("the log cannot be read")
    assert not path.exists()
    copy_database(template, path.with_suffix(".new"))
    for suffix in ("-wal", ""):
        source = Path(f"{path.with_suffix('.new')}{suffix}")
        if source.exists():
            source.rename(f"{path}{suffix}")
    tailer.until_says("Leading.")
    tailer.until_says("the log can be read again")
    assert lines(tailer, "the log cannot be read") == 1
    assert lines(tailer, "the log can be read again") == 1
