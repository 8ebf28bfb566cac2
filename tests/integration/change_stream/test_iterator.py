"""`realtime.iter_changes`, for code without an event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

import realtime
from realtime.event_log import sequencer
from tests.support.source import ROOT
from tests.support.waiting import until
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


def write(*titles: str) -> None:
    for title in titles:
        Note.objects.create(title=title)


def titles(iterator: Any, count: int) -> list[str]:
    return [next(iterator).new["title"] for _ in range(count)]


def left_running() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {n for n in names if n.startswith(("rowcast-changes", "rowcast-follower"))}


def test_changes_come_in_order_from_the_call_on() -> None:
    write("before")
    with realtime.iter_changes(Note) as changes:
        write("a", "b")
        Note.objects.filter(title="a").update(title="c")
        found = [next(changes) for _ in range(3)]
    assert [(c.type, c.new["title"]) for c in found] == [
        ("INSERT", "a"),
        ("INSERT", "b"),
        ("UPDATE", "c"),
    ]
    assert not left_running()


def test_since_and_position_go_on() -> None:
    with realtime.iter_changes(Note) as changes:
        write("a", "b", "c")
        assert titles(changes, 1) == ["a"]
        position = changes.position
    with realtime.iter_changes(Note, since=position) as changes:
        assert titles(changes, 2) == ["b", "c"]
        write("d")
        assert titles(changes, 1) == ["d"]


def test_a_snapshot_goes_over_into_changes() -> None:
    Note.objects.bulk_create(Note(title=str(number)) for number in range(500))
    with realtime.iter_changes(Note, snapshot=True) as changes:
        assert len(set(titles(changes, 500))) == 500
        write("more")
        change = next(changes)
    assert change.new["title"] == "more" and not change.snapshot


def test_iterators_share_what_runs_in_the_background() -> None:
    with realtime.iter_changes(Note) as one:
        running = left_running()
        with realtime.iter_changes(Note, events="INSERT") as two:
            assert left_running() == running
            write("a")
            assert titles(one, 1) == titles(two, 1) == ["a"]
        write("b")
        assert titles(one, 1) == ["b"]
    assert not left_running()


def test_an_iterator_that_is_forgotten_leaves_nothing_running() -> None:
    changes = realtime.iter_changes(Note)
    write("a")
    for change in changes:
        assert change.new["title"] == "a"
        break
    assert left_running()
    del changes, change
    gc.collect()
    until(lambda: not left_running(), "nothing is left running")


def test_an_error_ends_it_and_leaves_nothing_running() -> None:
    changes = realtime.iter_changes(Note, since="another:1")
    with pytest.raises(realtime.ResyncRequired):
        next(changes)
    assert list(changes) == []
    assert not left_running()


def test_wrong_arguments_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="pric"):
        realtime.iter_changes(Note, filter="pric=eq.1")
    assert not left_running()


async def test_an_event_loop_is_not_blocked() -> None:
    with pytest.raises(RuntimeError, match="async for"):
        realtime.iter_changes(Note)


def test_several_threads_each_have_one() -> None:
    found: dict[int, list[str]] = {}

    def consume(number: int, ready: threading.Barrier) -> None:
        with realtime.iter_changes(Note) as changes:
            ready.wait(30)
            found[number] = titles(changes, 2)

    ready = threading.Barrier(4)
    threads = [threading.Thread(target=consume, args=(n, ready)) for n in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    write("a", "b")
    for thread in threads:
        thread.join(30)
    assert found == {number: ["a", "b"] for number in range(3)}
    assert not left_running()


def test_a_database_that_was_away_is_waited_for() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a file is not away")
    with realtime.iter_changes(Note) as changes:
        write("a")
        assert titles(changes, 1) == ["a"]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        write("b")
        assert titles(changes, 1) == ["b"]


def test_what_a_leader_numbers_comes_too() -> None:
    with realtime.iter_changes(Note) as changes:
        write("a")
        sequencer.number(connection)
        assert titles(changes, 1) == ["a"]


def test_an_interrupt_ends_the_wait_and_loses_nothing() -> None:
    here = threading.main_thread()
    if threading.current_thread() is not here:
        pytest.skip("signals come to the main thread")
    with realtime.iter_changes(Note) as changes:
        soon = threading.Timer(0.1, signal.pthread_kill, [here.ident, signal.SIGINT])
        soon.start()
        with pytest.raises(KeyboardInterrupt):
            next(changes)
        write("a")
        assert titles(changes, 1) == ["a"]
    assert not left_running()


def test_an_event_loop_that_ends_without_a_close_leaves_no_thread() -> None:
    async def begin() -> None:
        stream = realtime.changes(Note)
        await stream.__aenter__()
        kept.append(stream)

    kept: list[Any] = []
    asyncio.run(begin())
    until(lambda: not left_running(), "nothing is left running")


@pytest.mark.slow
def test_a_program_ends_while_an_iterator_waits(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PROGRAM_DATABASE": str(tmp_path / "db")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["a", "b"]), done.stderr
    assert "Traceback" not in done.stderr


# A script without a server, a layer or a tailer, which ends in the middle of an iteration.
PROGRAM = """
import os
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="a-key-of-a-script-that-is-long-enough-for-all",
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "auth_rls", "realtime", "tests.zoo",
    ],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["PROGRAM_DATABASE"],
    }},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
import realtime
from tests.zoo.models import Note
changes = realtime.iter_changes(Note)
Note.objects.create(title="a")
Note.objects.create(title="b")
Note.objects.create(title="c")
for change in changes:
    print(change.new["title"], flush=True)
    if change.new["title"] == "b":
        break
"""
