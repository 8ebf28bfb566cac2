"""Handlers under test: what is declared in a test, run beside a tailer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from realtime.handling import registry
from realtime.handling.runner import Runner, Timing
from realtime.models import DeadLetter, Handler, HandlerDone
from tests.support.log import number_all
from tests.zoo.models import Note, Team

QUICK = Timing(refresh=0.02, renew=0.05, again=0.02)


@contextmanager
def running(**options: Any) -> Iterator[Runner]:
    """A runner of the declared handlers, while the block runs."""
    runner = Runner("default", 0.005, timing=QUICK, **options)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop(10)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait for a condition, and number what is captured meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it has not come to be"
        number_all()
        time.sleep(0.01)
    return found


def row(name: str) -> Handler:
    return Handler.objects.get(pk=name)


def begun(*names: str) -> None:
    """Wait until these handlers have their rows, so that what comes is not before their start."""
    until(lambda: Handler.objects.filter(pk__in=names).count() == len(names))


def handled(name: str, count: int) -> None:
    """Wait until the handler has had so many changes."""
    until(lambda: row(name).handled == count)


def stands(name: str) -> Handler:
    """The row of the handler, as soon as it stands still."""
    return until(lambda: row(name) if row(name).stopped else None)


def write(*titles: str, **values: Any) -> None:
    for title in titles:
        Note.objects.create(title=title, **values)


def copy(change: Any) -> None:
    """What a handler of notes may do: a team of the same name."""
    Team.objects.create(name=change.new["title"])


def copied() -> list[str]:
    return list(Team.objects.order_by("pk").values_list("name", flat=True))


@contextmanager
def no_others() -> Iterator[None]:
    """Within the block no handler is known or has a row but those of the test."""
    with registry.isolated():
        yield
    for model in (Handler, HandlerDone, DeadLetter):
        model.objects.all().delete()


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[threading.Thread]:
    """Work in a thread with connections of its own, joined at the end of the block."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
