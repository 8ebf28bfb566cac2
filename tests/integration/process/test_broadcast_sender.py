"""Broadcasts of processes that are no servers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from realtime.models import PassingBroadcast, WalEntry
from tests.support.processes import ROOT, environment
from tests.support.waiting import PATIENCE_SECONDS

_GREEN = {
    "gevent": "from gevent import monkey, sleep; monkey.patch_all()",
    "eventlet": "from eventlet import monkey_patch, sleep; monkey_patch()",
}
_PATCHED = """
{patch}
import django

django.setup()
import realtime
from tests.zoo.models import Note

realtime.broadcast("room", "saved", {{"n": 1}})
for _ in range(100):
    sleep(0)  # every greenlet that was left runs
print(Note.objects.count())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", _GREEN)
def test_in_green_threads_a_broadcast_goes_through_the_table_and_the_orm_works_on(
    kind: str, wal: Any
) -> None:
    program = subprocess.run(
        [sys.executable, "-c", _PATCHED.format(patch=_GREEN[kind])],
        cwd=ROOT,
        # A layer that does not answer: nothing is to be sent on it.
        env={**environment("redis://127.0.0.1:1"), "ROWCAST_LAYER": "core"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert (program.returncode, program.stdout) == (0, "0\n"), program.stderr
    assert PassingBroadcast.objects.count() == 1
    assert not WalEntry.objects.exists()
