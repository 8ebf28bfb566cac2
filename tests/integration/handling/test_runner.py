"""Which runner has a handler, and until when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from realtime import on_change
from realtime.handling import registry
from realtime.handling.definition import HandlerDefinition
from realtime.handling.runner import Runner
from realtime.models import Handler
from tests.support.handlers import begun, copied, copy, handled, row, running, until, write
from tests.support.waiting import PATIENCE_SECONDS
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_of_two_runners_one_runs_a_handler_and_the_other_takes_over() -> None:
    on_change(Note, name="copies")(copy)
    with running() as first:
        begun("copies")
        with running() as second:
            write("a")
            handled("copies", 1)
            assert row("copies").owner == first.id
            first.stop(10)
            until(lambda: row("copies").owner == second.id)
            write("b")
            handled("copies", 2)
    assert copied() == ["a", "b"]


def test_stored_definitions_may_change_while_a_runner_runs() -> None:
    got: list[str] = []
    definitions: list[HandlerDefinition] = []
    registry.add_stored(lambda: list(definitions))

    def collect(changes: Any) -> None:
        got.extend(change.new["title"] for change in changes)

    def define(filter_: str) -> HandlerDefinition:
        return HandlerDefinition(name="rows", models=(Note,), call=collect, filter=filter_)

    with running():
        definitions.append(define("title=like.a%"))
        begun("rows")
        write("a1", "b1")
        handled("rows", 1)
        until(lambda: row("rows").seq == 2)
        definitions[:] = [define("title=like.b%")]
        write_until(lambda: "b2" in got, "b2")
        definitions.clear()
        until(lambda: not row("rows").owner)
    assert got[0] == "a1"


def write_until(condition: Callable[[], Any], title: str) -> None:
    def written() -> Any:
        write(title)
        return condition()

    until(written)


def test_a_runner_may_be_stopped_while_it_begins_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    on_change(Note, name="begins")(copy)
    runner = Runner("default", 0.01)
    start = threading.Thread.start  # before it is replaced
    failed: list[BaseException] = []

    def stop() -> None:
        try:
            runner.stop(1)
        except BaseException as error:
            failed.append(error)

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "rowcast-begins":
            stopping = threading.Thread(target=stop)
            start(stopping)
            stopping.join()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    running = threading.Thread(target=runner.run)
    start(running)
    running.join(PATIENCE_SECONDS)
    assert not running.is_alive() and not failed
    assert not Handler.objects.exclude(owner="").exists()
