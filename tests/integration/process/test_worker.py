"""The worker: reads deep ranges for servers, prunes, and is missed by nobody when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import OperationalError

from realtime import api
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.models import Process, WalEntry, WalNumber
from realtime.process import registry, worker
from realtime.process.heartbeat import HeartbeatTiming
from realtime.process.hub import hub
from realtime.process.maintenance import Maintenance
from realtime.process.registry import Registration, Report
from realtime.process.remote_reader import RemoteReader
from realtime.process.worker import RealtimeWorker
from realtime.util.database_threads import close_connections
from tests.support.log import number_all
from tests.support.socket_client import Client, db
from tests.support.waiting import auntil
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal"), pytest.mark.slow]


@pytest.fixture(autouse=True)
async def tidy(wal: Any) -> AsyncIterator[None]:
    await db(Process.objects.all().delete)
    yield
    await close_connections()


class Working:
    """A worker in this process, started as Channels starts it: by its first message."""

    def __init__(self, **options: Any) -> None:
        quick = HeartbeatTiming(renew=0.05, announce=0.01)
        self._app: Any = RealtimeWorker.as_asgi(timing=quick, **options)
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.id = ""

    def tell(self, message: dict[str, Any]) -> None:
        self._queue.put_nowait(message)

    async def __aenter__(self) -> Working:
        scope = {"type": "channel", "channel": "realtime"}
        self.tell({"type": "wake"})
        task = self._task = asyncio.create_task(self._app(scope, self._queue.get, _send))

        async def ids() -> list[str]:
            assert not task.done(), task
            return await db(registry.workers, "default")

        (self.id,) = await auntil(ids, "the worker's row")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    async def did(self, what: str, times: int = 1) -> None:
        """Wait until its row counts this often."""

        def counted() -> bool:
            return bool(Process.objects.get(pk=self.id).counters[what] >= times)

        await auntil(lambda: db(counted), f"{times} {what}")


async def _send(message: dict[str, Any]) -> None:
    """A worker's consumer has nobody to send to."""


class Asking:
    """A server's readers: through a worker from 3 events on, and its own."""

    def __init__(self, **options: Any) -> None:
        self.own = LogReader("default", EventLog(10))
        self.remote = RemoteReader(self.own, "default", "default", deep=3, **options)

    async def all(self, upto: int) -> list[DatabaseEvent]:
        found: list[DatabaseEvent] = []
        while len(found) < upto:
            some = await self.remote.from_table(len(found), upto)
            assert some, found
            found += some
        return found


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    yield made
    await made.remote.close()


def write(count: int, body: str = "") -> None:
    Note.objects.bulk_create([Note(title=str(n), body=body) for n in range(count)])
    number_all()


# --- reading --------------------------------------------------------------------------------------


async def test_a_worker_gives_the_events_that_the_table_gives(layer: str) -> None:
    await db(write, 1_500)
    asking = Asking()
    async with Working() as working:
        events = await asking.all(1_500)
        # 1,000 at a time; of the rest, the last few are too few to ask for.
        await working.did("reads")
    assert [event.seq for event in events] == list(range(1, 1_501))
    own = await asking.own.from_table(0, 1_500)
    assert [(e.seq, e.commit_us, e.op, e.relation, e.new) for e in events[:1_000]] == [
        (e.seq, e.commit_us, e.op, e.relation, e.new) for e in own
    ]
    await asking.remote.close()


async def test_a_few_events_are_not_worth_asking_for(asking: Asking) -> None:
    await db(write, 3)
    async with Working() as working:
        assert len(await asking.all(3)) == 3
        working.tell({"type": "prune"})
        await working.did("prunes")
        assert (await db(Process.objects.get, pk=working.id)).counters["reads"] == 0


async def test_large_rows_come_in_answers_of_bounded_size(asking: Asking) -> None:
    await db(write, 10, "x" * 4_000)
    async with Working(answer_bytes=10_000) as working:
        assert len(await asking.remote.from_table(0, 10)) == 2
        assert [event.seq for event in await asking.all(10)] == list(range(1, 11))
        await working.did("reads", 4)


async def test_a_row_larger_than_an_answer_goes_alone(asking: Asking) -> None:
    await db(write, 5, "x" * 100)
    async with Working(answer_bytes=10):
        assert [event.seq for event in await asking.all(5)] == [1, 2, 3, 4, 5]


async def test_what_is_not_kept_any_more_is_no_events(asking: Asking) -> None:
    await db(write, 20)
    await db(WalEntry.objects.filter(seq__lte=5).delete)
    async with Working() as working:
        assert await asking.remote.from_table(2, 20) == []
        await working.did("reads")


async def test_without_a_worker_the_server_reads_itself(asking: Asking) -> None:
    await db(write, 20)
    assert len(await asking.all(20)) == 20


async def test_a_worker_that_does_not_answer_costs_a_moment_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asking = Asking(answer_seconds=0.05)
    await db(write, 2_500)
    silent = Registration("default", "silent", Process.Kind.WORKER)
    await db(silent.renew, Report())
    assert len(await asking.all(2_500)) == 2_500
    await asking.remote.close()
    assert [record.action for record in caplog.records] == ["worker_silent"]


async def test_a_worker_that_cannot_read_is_not_waited_for(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(worker, "read_rows", fail)
    await db(write, 20)
    async with Working():
        assert len(await asking.all(20)) == 20
    assert ["away" in record.getMessage() for record in caplog.records] == [True]


async def test_a_client_that_resumes_far_behind_is_read_for_by_a_worker(
    closing_hub: None, granted: Any
) -> None:
    hub().remote.deep = 3
    await db(granted, "view_note")
    await db(write, 1)
    begin = await db(api.head)
    await db(write, 40)
    async with Working() as working:
        client = await Client().connect()
        await client.listen(since=begin)
        titles = [(await client.change())["record"]["title"] for _ in range(40)]
        assert titles == [str(n) for n in range(40)]
        await working.did("reads")
        await client.close()


async def test_a_message_that_nobody_knows_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async with Working() as working:
        for message in ({"type": "dance"}, {"type": "read", "id": "x"}, {}):
            working.tell(message)
        working.tell({"type": "prune"})
        await working.did("prunes")
        assert working.alive
    assert [r.action for r in caplog.records] == ["worker_unknown_message"] * 3


async def test_a_worker_that_ends_has_no_row(layer: str) -> None:
    async with Working():
        pass
    assert await db(registry.workers, "default") == []


# --- what the leader asks for ---------------------------------------------------------------------


def write_old(count: int) -> None:
    write(count)
    WalNumber.objects.update(commit_us=1)


async def nothing_kept() -> None:
    await auntil(lambda: db(lambda: not WalEntry.objects.exists()), "pruning")


@pytest.mark.parametrize("layer", ["core", "pubsub"], indirect=True)
async def test_a_leader_lets_a_worker_prune(layer: str) -> None:
    await db(write_old, 20)
    leader = Maintenance("default", first_seconds=0.0)
    async with Working() as working:
        await leader.beat(Report(leading=True))
        await working.did("prunes")
    assert not await db(WalEntry.objects.exists)
    await leader.close()


async def test_a_leader_without_a_worker_prunes_itself() -> None:
    await db(write_old, 20)
    leader = Maintenance("default", first_seconds=0.0)
    await leader.beat(Report(leading=True))
    await nothing_kept()
    await leader.close()


async def test_who_does_not_lead_prunes_nothing() -> None:
    await db(write_old, 20)
    standby = Maintenance("default", first_seconds=0.0)
    await standby.beat(Report(leading=False))
    await standby.close()
    assert await db(WalEntry.objects.count) == 20


async def test_pruning_is_not_due_at_once() -> None:
    await db(write_old, 20)
    leader = Maintenance("default")
    await leader.beat(Report(leading=True))
    await leader.close()
    assert await db(WalEntry.objects.count) == 20


async def test_a_log_that_is_kept_shortly_is_pruned_again_soon(settings: Any) -> None:
    settings.REALTIME = {"RETENTION": {"minutes": 0.0001}}
    leader = Maintenance("default", first_seconds=0.0)
    for _ in range(2):
        await db(write_old, 20)

        async def pruned() -> bool:
            await leader.beat(Report(leading=True))
            return not await db(WalEntry.objects.exists)

        await auntil(pruned, "pruning")
    await leader.close()
