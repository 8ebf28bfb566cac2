"""Reading the log: what a process holds is bounded in bytes, and a cursor gets all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from realtime.event_log.batch import Batch
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.event_log.table import READ_BYTES, read_rows
from realtime.models import WalEntry
from realtime.wal.head import read_head
from tests.support.log import number_all
from tests.support.socket_client import db
from tests.zoo.models import Note

pytestmark = pytest.mark.usefixtures("wal", "closing_hub")

LARGE = 48 * 1024


def write(count: int, size: int = 1) -> Any:
    Note.objects.bulk_create([Note(title=str(n), body="x" * size) for n in range(count)])
    number_all()
    return read_head(connection)


def test_large_rows_are_read_in_blocks_of_bytes() -> None:
    head = write(400, LARGE)
    after, reads = 0, 0
    while after < head.seq:
        rows = read_rows("default", after, head.seq)
        assert [row.seq for row in rows] == list(range(after + 1, after + 1 + len(rows)))
        assert sum(row.size for row in rows) <= READ_BYTES + 2 * LARGE
        after, reads = rows[-1].seq, reads + 1
    assert 2 < reads < 10


def test_of_rows_of_an_unknown_size_a_few_are_read() -> None:
    head = write(12, READ_BYTES // 4)
    assert [row.seq for row in read_rows("default", 0, head.seq)] == list(range(1, 9))


def test_small_rows_are_read_a_thousand_at_once() -> None:
    head = write(1_200)
    assert len(read_rows("default", 0, head.seq)) == 1_000


def test_a_batch_counts_its_large_rows_for_several() -> None:
    write(2, LARGE)
    rows = read_rows("default", 0, 2)
    assert Batch("", 0, rows, []).weight >= 2 * LARGE // 4096
    write(2)
    assert Batch("", 2, read_rows("default", 2, 4), []).weight == 2


async def test_the_ring_holds_no_more_bytes_than_it_may() -> None:
    head = await db(lambda: write(20, LARGE))
    log = EventLog(1_000, most_bytes=5 * LARGE)
    reader = LogReader("default", log)
    for event in await reader.from_table(0, head.seq):
        log.append(event)
    assert log.seq == 20
    assert 3 <= len(log) <= 5
    assert log.since(0) is None
    kept = log.since(18)
    assert kept is not None
    assert [event.seq for event in kept] == [19, 20]


async def test_an_event_larger_than_the_ring_passes_it_by() -> None:
    head = await db(lambda: write(2, LARGE))
    log = EventLog(1_000, most_bytes=LARGE // 2)
    reader = LogReader("default", log)
    for event in await reader.from_table(0, head.seq):
        log.append(event)
    assert (log.seq, len(log)) == (2, 0)
    assert [event.seq for event in await reader.since(0)] == [1, 2]


async def test_a_cursor_before_what_is_kept_gets_nothing_of_what_is_in_memory() -> None:
    head = await db(lambda: write(1_500))
    log = EventLog(10)
    log.start(head)
    reader = LogReader("default", log)
    assert await reader.keeps(0)
    assert len(await reader.since(0)) == 1_000
    await db(lambda: WalEntry.objects.filter(seq__lte=700).delete())
    assert not await reader.keeps(0)
    assert not await reader.keeps(699)
    assert await reader.keeps(700)
    await db(lambda: WalEntry.objects.all().delete())
    assert not await reader.keeps(900)
    # What is not in memory is found out by reading it.
    assert await reader.since(1_100) == []
