"""Handlers run in the process of a test until they have all that is committed."""

from __future__ import annotations

import time
from typing import Any

from django.core.management import call_command
from django.test import TransactionTestCase

from realtime import conf, head
from realtime.handling.runner import Runner
from realtime.models import Handler

PATIENCE = 30.0


class HandlerTests(TransactionTestCase):
    """Tests of handlers. What is written before `handled` is handled when that returns."""

    names: tuple[str, ...] = ()

    def setUp(self) -> None:
        # New handlers begin at the head.
        Handler.objects.all().delete()
        self.handled()

    def handled(self, *states: str) -> None:
        """Returns when every handler has all changes, or has come to one of these ends."""
        call_command("tail_wal", once=True, verbosity=0)
        runner = Runner(conf.current().DATABASE, 0.01, names=self.names)
        runner.start()
        deadline = time.monotonic() + PATIENCE
        try:
            while not all(self._has_all(name, states) for name in self.names):
                assert time.monotonic() < deadline, list(Handler.objects.values())
                time.sleep(0.01)
        finally:
            runner.stop(PATIENCE)

    def _has_all(self, name: str, states: tuple[str, ...]) -> bool:
        row: Any = Handler.objects.filter(pk=name).first()
        return row is not None and (
            row.seq >= head() or bool(row.stopped) or bool(row.attempts and "failing" in states)
        )
