"""Changes that wait with no process to number them are logged, once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from django.db import connections

from realtime.event_log import sequencer
from realtime.process.numbering_monitor import NumberingMonitor
from realtime.util.database_threads import close_connections
from tests.support.socket_client import db
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal")


@pytest.fixture(autouse=True)
async def pool() -> AsyncIterator[None]:
    yield
    await close_connections()


async def test_it_is_one_line_when_it_begins_and_one_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "realtime.processes")
    monitor = NumberingMonitor("default")
    await monitor.look()
    await db(Note.objects.create, title="a")
    for _ in range(2):
        await monitor.look()
    # It may be a leader that is about to number, or a standby about to take over.
    assert caplog.records == []
    for _ in range(5):
        await monitor.look()
    assert [record.action for record in caplog.records] == ["nobody_numbers"]
    assert "manage.py tail_wal" in caplog.records[0].getMessage()
    await db(lambda: sequencer.number(connections["default"]))
    await monitor.look()
    assert [record.action for record in caplog.records][1:] == ["numbering_works"]


async def test_a_log_that_moves_is_fine_however_much_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = NumberingMonitor("default")
    for _ in range(8):
        await db(Note.objects.create, title="a")
        await db(lambda: sequencer.number(connections["default"]))
        await db(Note.objects.create, title="b")
        await monitor.look()
    assert caplog.records == []
