"""The worker: reads deep ranges for servers, prunes, and is missed by nobody when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.db import OperationalError, connection
from django.test import override_settings

from realtime import api
from realtime.bus.layers import let_go, own_layer
from realtime.bus.mailbox import Mailbox
from realtime.event_log import sequencer
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.reader import LogReader
from realtime.event_log.ring import EventLog
from realtime.models import Process, WalEntry
from realtime.ops.layer_probe import probe
from realtime.process import registry, worker
from realtime.process.heartbeat import HeartbeatTiming
from realtime.process.hub import hub
from realtime.process.maintenance import Maintenance
from realtime.process.registry import Registration, Report
from realtime.process.remote_reader import RemoteReader
from realtime.process.worker import RealtimeWorker
from realtime.process.worker_messages import box_of
from realtime.process.worker_server import WorkerServer
from realtime.util.database_threads import close_connections
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.processes import ROOT, environment, managing
from tests.support.redis import Redis, redis_goes
from tests.support.socket_client import Client, db
from tests.support.vendors import about_no_database
from tests.support.waiting import PATIENCE_SECONDS, auntil, until
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal"), pytest.mark.slow]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redises.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "core", "pubsub"])
async def layer(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    url = "" if request.param == "memory" else request.getfixturevalue("redis").url
    with override_settings(CHANNEL_LAYERS=layers(request.param, url)):
        yield request.param
        await let_go(get_channel_layer())


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
    while sequencer.number(connection):
        pass


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
    WalEntry.objects.update(commit_us=1)


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


# --- the layer ------------------------------------------------------------------------------------


async def test_a_probe_comes_back(layer: str) -> None:
    found = await probe()
    assert found.state == ("in-memory" if layer == "memory" else "ok"), found
    assert layer == "memory" or found.ms is not None


async def test_silence_on_the_core_layer_is_no_failure(redis: Redis) -> None:
    # redis-py 8 reads for five seconds unless told otherwise, which is what the layer waits for.
    with override_settings(CHANNEL_LAYERS=layers("core", redis.url)):
        own = own_layer("default")
        assert own.hosts[0]["socket_timeout"] > own.brpop_timeout


@pytest.mark.parametrize("kind", ["core", "pubsub"])
async def test_a_probe_of_a_layer_that_is_down_says_so(kind: str) -> None:
    with override_settings(CHANNEL_LAYERS=layers(kind, "redis://127.0.0.1:1/0")):
        found = await probe(timeout=1.0)
    assert found.state == "down"
    assert found.error


# --- the command ----------------------------------------------------------------------------------


def test_runworker_does_its_work_and_ends_cleanly_on_sigterm(redis: Redis, tmp_path: Path) -> None:
    with managing(tmp_path, "runworker", "realtime", redis=redis.url) as program:
        with override_settings(CHANNEL_LAYERS=layers("pubsub", redis.url)):
            asyncio.run(_wake(program.process))
            (id_,) = registry.workers("default")
            write_old(20)
            asyncio.run(_prune())
        until(lambda: not WalEntry.objects.exists(), "pruning")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
        assert "Traceback" not in program.said
        assert f"worker {id_} has ended" in program.said
    assert registry.workers("default") == []


@redis_goes
@about_no_database
@pytest.mark.parametrize("kind", ["core", "pubsub"])
def test_runworker_outlives_idleness_and_a_redis_that_hangs_restarts_and_forgets(
    kind: str, tmp_path: Path
) -> None:
    with (
        redises.running_ours(tmp_path) as own,
        managing(tmp_path, "runworker", "realtime", redis=own.url, layer=kind) as program,
        override_settings(CHANNEL_LAYERS=layers(kind, own.url)),
    ):
        until(lambda: registry.workers("default") or program.process.poll() is not None, "a row")
        (id_,) = registry.workers("default")

        def prunes() -> None:
            write_old(5)
            deadline = time.monotonic() + 2 * PATIENCE_SECONDS
            while _reads(id_) == before and time.monotonic() < deadline:
                # What is sent while the layer does not work is lost.
                with contextlib.suppress(Exception):
                    asyncio.run(_ask_to_prune(id_))
                time.sleep(0.2)
            assert program.process.poll() is None, program.said
            assert _reads(id_) > before, program.said

        for harm in (lambda: time.sleep(8), own.restart, own.flush, lambda: _hang(own)):
            before = _reads(id_)
            harm()
            prunes()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
        assert registry.workers("default") == []


def _hang(server: Redis) -> None:
    server.freeze()
    # Longer than any time-out of the client library.
    time.sleep(7)
    server.thaw()


def _reads(id_: str) -> int:
    return Process.objects.get(pk=id_).counters.get("prunes", 0)


async def _ask_to_prune(id_: str) -> None:
    box = Mailbox("default", "test.asking", lambda message: None)
    try:
        await box.send(box_of(id_), {"type": "prune"})
    finally:
        await box.close()


def test_a_worker_that_fails_is_started_again() -> None:
    started: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope["channel"])
        assert await receive() == {"type": "wake"}
        if len(started) < 3:
            raise RuntimeError("no database yet")
        await asyncio.Event().wait()

    class Server(WorkerServer):
        look_seconds = 0.01

    async def run() -> None:
        server = Server(application, ["realtime"], object())
        running = asyncio.create_task(server.arun())
        await auntil(lambda: len(started) == 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert started == ["realtime"] * 3


def test_the_layer_of_another_channel_may_still_end_the_command() -> None:
    class Broken:
        async def receive(self, channel: str) -> None:
            raise ConnectionError(f"no layer for {channel}")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    server = WorkerServer(application, ["realtime", "thumbnails"], Broken())
    with pytest.raises(ConnectionError, match="no layer for thumbnails"):
        asyncio.run(server.arun())


_STUBBORN = """
import asyncio
import django

django.setup()
from realtime.process import worker

async def stubborn():
    for _ in range(3):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("went on", flush=True)
    await asyncio.Event().wait()

async def main():
    others = asyncio.create_task(stubborn())
    with worker.ending_on_sigterm(again_seconds=0.05):
        print("ready", flush=True)
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended")
"""


_SLOW_TO_CLEAN_UP = """
import asyncio
import contextlib
import django

django.setup()
from realtime.process import worker

async def main():
    with worker.ending_on_sigterm(again_seconds=0.05):
        try:
            print("ready", flush=True)
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            print("cleaned up", flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended")
"""


@about_no_database
def test_a_task_that_takes_no_for_an_answer_does_not_hold_up_the_end() -> None:
    assert _said_on_sigterm(_STUBBORN) == "went on\n" * 3 + "ended\n"


@about_no_database
def test_an_end_that_takes_long_is_an_end_and_no_failure() -> None:
    assert _said_on_sigterm(_SLOW_TO_CLEAN_UP) == "cleaned up\nended\n"


def _said_on_sigterm(source: str) -> str:
    """What a program that prints "ready" says after SIGTERM. It has to end with 0."""
    program = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGTERM)
        said, _ = program.communicate(timeout=PATIENCE_SECONDS)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0
    return said


async def _wake(process: subprocess.Popen[bytes]) -> None:
    leader = Maintenance("default")

    async def woken() -> list[str]:
        assert process.poll() is None
        await leader.beat(Report(leading=True))
        return await db(registry.workers, "default")

    await auntil(woken, "the worker's row")
    await leader.close()
    await close_connections()


async def _prune() -> None:
    leader = Maintenance("default")
    await leader.prune()
    await leader.close()
    await close_connections()
