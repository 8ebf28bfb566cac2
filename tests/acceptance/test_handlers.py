"""Handlers in processes that are killed in the middle of their work."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.db import OperationalError

from realtime.models import DeadLetter, Handler, WalEntry
from tests.acceptance.support.server import APPLICATION, COMMANDS
from tests.support.ports import free_port
from tests.support.processes import ROOT, Program, environment, managing
from tests.support.python import Python
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.zoo.models import Note, Team

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.usefixtures("wal")]

KINDS = ("in_order", "in_batches", "by_key")


@pytest.fixture(autouse=True)
def copying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_APPS", "tests.copies")


def copies(kind: str) -> list[str]:
    found = Team.objects.filter(name__startswith=f"{kind} ").order_by("pk")
    return [name.removeprefix(f"{kind} ") for name in found.values_list("name", flat=True)]


def owned(by: Program) -> bool:
    marker = f":{by.process.pid}:"
    return Handler.objects.filter(owner__contains=marker).exists()


def write(first: int, count: int) -> None:
    for n in range(first, first + count):
        Note.objects.create(title=str(n), score=n % 5)


@pytest.mark.timeout(240)
def test_processes_that_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    written = 0
    for round_ in range(4):
        folder = tmp_path / str(round_)
        folder.mkdir()
        with managing(folder, "handlers", "run") as program:
            before = len(copies("in_order"))
            until(lambda running=program: owned(running), "a process takes handlers")
            write(written, 60)
            written += 60
            until(lambda least=before: len(copies("in_order")) > least, "some copies")
            # Among its work.
            program.process.kill()
            program.process.wait()
    with managing(tmp_path, "handlers", "run") as program:
        for kind in KINDS:
            until(lambda kind=kind: len(copies(kind)) >= written, f"all copies {kind}")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
        assert "Traceback" not in program.said
    assert not Handler.objects.exclude(owner="").exists()
    titles = [str(n) for n in range(written)]
    assert copies("in_order") == titles
    assert copies("in_batches") == titles
    assert sorted(copies("by_key"), key=int) == titles
    for key in range(5):
        of_key = [title for title in copies("by_key") if int(title) % 5 == key]
        assert of_key == [title for title in titles if int(title) % 5 == key]
    assert WalEntry.objects.filter(actor="handler:in_order").count() == written


def settled(names: Sequence[str]) -> bool:
    head = WalEntry.objects.count()
    rows = Handler.objects.filter(pk__in=names)
    return len(rows) == len(names) and all(row.stopped or row.seq >= head for row in rows)


@pytest.mark.timeout(240)
def test_a_change_that_ends_every_process_is_given_up_and_keeps_no_other_handler_from_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWCAST_APPS", "tests.deadly")
    for title in ("0", "1", "deadly", "2", "3"):
        Note.objects.create(title=title, score=0)
    handlers = ("in_batches", "by_key", "innocent")
    ends = 0
    while not settled(handlers):
        folder = tmp_path / str(ends)
        folder.mkdir()
        with managing(folder, "handlers", "run") as program:
            process = program.process
            until(lambda: process.poll() is not None or settled(handlers), "an end")  # noqa: B023
            ends += process.poll() is not None
    # Of each handler the first one tells of no change; then two attempts are counted.
    assert ends <= 2 * (1 + 2)
    titles = ["0", "1", "2", "3"]
    assert copies("in_batches") == titles
    assert copies("by_key") == titles[:2]
    letter = DeadLetter.objects.get()
    stands = Handler.objects.get(pk="by_key")
    assert (letter.handler, letter.attempts) == ("in_batches", 2)
    assert (stands.stopped, stands.failed_seq) == ("failed", letter.seq)
    for error in (stands.last_error, letter.error):
        assert error.startswith("the process ended")
    assert copies("innocent") == ["0", "1", "deadly", "2", "3"]


@pytest.mark.parametrize("kind", ["daphne", "uvicorn", "fanout"])
def test_a_server_runs_handlers_before_anybody_asks_it_for_anything(kind: str) -> None:
    command = [word.format(port=free_port()) for word in COMMANDS[kind]]
    server = Python([*command, APPLICATION], cwd=ROOT, env=environment())
    try:
        write(0, 1)
        until(lambda: copies("in_order") == ["0"], "the copy")
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()
    assert not Handler.objects.exclude(owner="").exists()


def pause(program: Program) -> None:
    """Stop a process, but not while it keeps everybody from writing: on SQLite that lasts."""
    while True:
        program.process.send_signal(signal.SIGSTOP)
        try:
            Note.objects.filter(pk=0).update(score=0)
            return
        except OperationalError:
            program.process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(240)
def test_a_paused_process_is_replaced_and_commits_nothing_when_it_goes_on(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(managing(folders[0], "handlers", "run"))
        until(lambda: owned(first), "the first process takes handlers")
        write(0, 30)
        until(lambda: all(len(copies(kind)) == 30 for kind in KINDS), "its copies")
        pause(first)
        try:
            second = stack.enter_context(managing(folders[1], "handlers", "run"))
            write(30, 30)
            until(
                lambda: all(len(copies(kind)) == 60 for kind in KINDS),
                "the second one's copies",
                patience=2 * PATIENCE_SECONDS,
            )
            assert owned(second)
        finally:
            first.process.send_signal(signal.SIGCONT)
        write(60, 30)
        until(lambda: all(len(copies(kind)) >= 90 for kind in KINDS), "the copies of the rest")
    for kind in KINDS:
        assert sorted(copies(kind), key=int) == [str(n) for n in range(90)]
