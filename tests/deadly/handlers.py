"""Handlers that end their process at notes called "deadly", and one that does nothing wrong."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from realtime import on_change
from tests.zoo.models import Note, Team


def copy(kind: str, change: Any) -> None:
    title = change.new["title"]
    if title == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    Team.objects.create(name=f"{kind} {title}")


@on_change(
    Note, name="in_batches", batch=7, start="beginning", attempts=2, on_failure="dead_letter"
)
def in_batches(changes: list[Any]) -> None:
    for change in changes:
        copy("in_batches", change)


@on_change(Note, name="by_key", key="score", concurrency=3, start="beginning", attempts=1)
def by_key(change: Any) -> None:
    copy("by_key", change)


@on_change(Note, name="innocent", start="beginning")
def innocent(change: Any) -> None:
    # In the middle of something when the others end the process.
    time.sleep(0.3)
    Team.objects.create(name=f"innocent {change.new['title']}")
