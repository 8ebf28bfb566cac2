"""`manage.py runworker realtime`: it starts, outlives what a Redis may do, and ends when asked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from realtime.bus.mailbox import Mailbox
from realtime.models import Process, WalEntry, WalNumber
from realtime.process import registry
from realtime.process.maintenance import Maintenance
from realtime.process.registry import Report
from realtime.process.worker_messages import box_of
from realtime.process.worker_server import WorkerServer
from realtime.util.database_threads import close_connections
from tests.support import redis as redises
from tests.support.layers import layers
from tests.support.log import number_all
from tests.support.processes import ROOT, environment, managing
from tests.support.python import Python
from tests.support.redis import LIBRARY_SECONDS, Redis, redis_goes
from tests.support.socket_client import db
from tests.support.vendors import about_no_database
from tests.support.waiting import PATIENCE_SECONDS, auntil, until
from tests.zoo.models import Note

pytestmark = [pytest.mark.usefixtures("wal"), pytest.mark.slow]


@pytest.fixture(autouse=True)
async def tidy(wal: Any) -> AsyncIterator[None]:
    await db(Process.objects.all().delete)
    yield
    await close_connections()


def write(count: int, body: str = "") -> None:
    Note.objects.bulk_create([Note(title=str(n), body=body) for n in range(count)])
    number_all()


def write_old(count: int) -> None:
    write(count)
    WalNumber.objects.update(commit_us=1)


def test_runworker_does_its_work_and_ends_cleanly_on_sigterm(redis: Redis, tmp_path: Path) -> None:
    with managing(tmp_path, "runworker", "realtime", redis=redis.url) as program:
        with override_settings(CHANNEL_LAYERS=layers("pubsub", redis.url)):
            asyncio.run(_wake(program.process))
            (id_,) = registry.workers("default")
            write_old(20)

            def pruned() -> bool:
                # What is sent before the worker has subscribed is lost, so it is asked again.
                asyncio.run(_prune())
                return not WalEntry.objects.exists()

            until(pruned, "pruning", every=0.2)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
        assert "Traceback" not in program.said
        assert f"worker {id_} has ended" in program.said
    assert registry.workers("default") == []


@about_no_database
def test_a_worker_that_a_shell_started_in_the_background_ends_cleanly_too(
    redis: Redis, tmp_path: Path
) -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with managing(tmp_path, "runworker", "realtime", redis=redis.url) as program:
            with override_settings(CHANNEL_LAYERS=layers("pubsub", redis.url)):
                asyncio.run(_wake(program.process))
            program.process.send_signal(signal.SIGTERM)
            assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
            assert "Traceback" not in program.said and "has ended" in program.said
    finally:
        signal.signal(signal.SIGINT, usual)


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
            before = _prunes(id_)
            write_old(5)

            def asked() -> bool:
                # What is sent while the layer does not work is lost, so it is asked again.
                assert program.process.poll() is None, program.said
                with contextlib.suppress(Exception):
                    asyncio.run(_ask_to_prune(id_))
                return _prunes(id_) > before

            until(asked, "pruning", patience=2 * PATIENCE_SECONDS, every=0.2)

        prunes()
        for harm in (_idle, own.restart, own.flush, lambda: _hang(own)):
            harm()
            prunes()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0, program.said
        assert registry.workers("default") == []


def _idle() -> None:
    time.sleep(LIBRARY_SECONDS)


def _hang(server: Redis) -> None:
    server.freeze()
    time.sleep(LIBRARY_SECONDS)
    server.thaw()


def _prunes(id_: str) -> int:
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


async def _wake(process: Python) -> None:
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
