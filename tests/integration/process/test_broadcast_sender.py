"""Broadcasts of processes that are no servers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from realtime.models import WalEntry
from tests.support.processes import ROOT, environment
from tests.support.waiting import PATIENCE_SECONDS

_PATCHED = """
from gevent import monkey

monkey.patch_all()
import django

django.setup()
import gevent

import realtime
from tests.zoo.models import Note

realtime.broadcast("room", "saved", {"n": 1})
for _ in range(100):
    gevent.sleep(0)  # every greenlet that was left runs
print(Note.objects.count())
"""


def test_under_gevent_a_broadcast_goes_through_the_log_and_the_orm_works_on(wal: Any) -> None:
    program = subprocess.run(
        [sys.executable, "-c", _PATCHED],
        cwd=ROOT,
        # A layer that does not answer: nothing is to be sent on it.
        env={**environment("redis://127.0.0.1:1"), "ROWCAST_LAYER": "core"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert (program.returncode, program.stdout) == (0, "0\n"), program.stderr
    assert WalEntry.objects.filter(table_name="realtime_message", op="INSERT").count() == 1
