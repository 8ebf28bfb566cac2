"""Checks at the end of a test with failures: of the log, and of the frames that each client got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.acceptance.support.deployment import Deployment
from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.resuming_client import Follower
from tests.acceptance.support.server import PATIENCE
from tests.support.waiting import auntil

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of a note as the log has it."""

    seq: int
    commit_us: int
    op: str
    key: str
    old: Row | None
    new: Row | None

    @property
    def judged(self) -> Row:
        """The row that decides who may see the change."""
        row = self.old if self.op == "DELETE" else self.new
        assert row is not None
        return row


def read_log(orm: OrmProcess) -> list[Entry]:
    """The changes of notes, in order."""
    rows = orm.sql(
        "SELECT n.seq, n.commit_us, w.op, w.pk_text, w.old, w.new FROM realtime_wal_number AS n"
        " JOIN realtime_wal AS w ON w.id = n.entry_id"
        " JOIN realtime_wal_relation AS r ON r.id = w.relation_id"
        " WHERE r.table_name IN ('zoo_note', 'public.zoo_note') ORDER BY n.seq"
    )

    def image(value: Any) -> Row | None:
        return json.loads(value) if isinstance(value, str) else value

    return [Entry(*row[:4], image(row[4]), image(row[5])) for row in rows]


async def until_numbered(deployment: Deployment) -> None:
    """Returns when all that was captured has its number."""

    async def numbered() -> bool:
        return not await asyncio.to_thread(deployment.orm.backlog)

    await auntil(numbered, "the numbering of all entries", patience=PATIENCE, every=0.02)


def check_log(orm: OrmProcess) -> list[Entry]:
    """No number is missing or given twice, and the log leads to the table as it is."""
    numbers = orm.numbers()
    _, head = orm.head()
    assert sorted(numbers) == list(range(1, head + 1))
    entries = read_log(orm)
    table: dict[int, str] = {}
    for entry in entries:
        if entry.op == "DELETE":
            assert entry.old is not None
            del table[entry.old["id"]]
        else:
            assert entry.new is not None
            assert (entry.op == "INSERT") == (entry.new["id"] not in table)
            table[entry.new["id"]] = entry.new["title"]
    assert table == dict(orm.sql("SELECT id, title FROM zoo_note"))
    times = [entry.commit_us for entry in entries]
    assert times == sorted(set(times))
    return entries


async def check_follower(
    follower: Follower, entries: list[Entry], may_see: Callable[[Row], bool]
) -> None:
    """Check that it got all that it may see since its first join, once, in order, nothing else."""
    wanted = [e for e in entries if e.seq > follower.begun_at and may_see(e.judged)]
    assert wanted
    await follower.until(lambda: follower.heard and follower.heard[-1].seq >= wanted[-1].seq)
    assert [(h.seq, h.type) for h in follower.heard] == [(e.seq, e.op) for e in wanted]
    assert follower.resyncs == 0


def longest_lag(follower: Follower, entries: list[Entry]) -> float:
    """The longest time from a commit to its arrival, in seconds."""
    committed = {entry.seq: entry.commit_us / 1e6 for entry in entries}
    return max(heard.at - committed[heard.seq] for heard in follower.heard)
