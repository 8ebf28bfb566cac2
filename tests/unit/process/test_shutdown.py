"""Who hears SIGTERM, and in which order."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from realtime.process.shutdown import StopSignal
from tests.support.waiting import auntil


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What happened, in order; the handler that stands here is the server's."""
    happened: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: happened.append("server"))
    yield happened
    signal.signal(signal.SIGTERM, before)


def stop_signal(told: list[str], gate: asyncio.Event | None = None, most: float = 10.0) -> Any:
    async def drain() -> None:
        told.append("begun")
        if gate is not None:
            await gate.wait()
        told.append("drained")

    return StopSignal(asyncio.get_running_loop(), drain, most)


async def test_the_server_hears_of_it_when_everybody_has_been_told(told: list[str]) -> None:
    former = signal.getsignal(signal.SIGTERM)
    stop_signal(told).install()
    signal.raise_signal(signal.SIGTERM)
    await auntil(lambda: "server" in told)
    assert told == ["begun", "drained", "server"]
    assert signal.getsignal(signal.SIGTERM) is former


async def test_a_second_signal_does_not_wait(told: list[str]) -> None:
    gate = asyncio.Event()
    stop_signal(told, gate).install()
    signal.raise_signal(signal.SIGTERM)
    await auntil(lambda: told)
    signal.raise_signal(signal.SIGTERM)
    assert told == ["begun", "server"]
    gate.set()
    await auntil(lambda: "drained" in told)
    assert told.count("server") == 1


async def test_what_takes_too_long_is_given_up(told: list[str]) -> None:
    stop_signal(told, asyncio.Event(), most=0.01).install()
    signal.raise_signal(signal.SIGTERM)
    await auntil(lambda: "server" in told)
    assert told == ["begun", "server"]


async def test_uninstalled_it_is_as_if_it_had_never_been(told: list[str]) -> None:
    former = signal.getsignal(signal.SIGTERM)
    stop = stop_signal(told)
    stop.install()
    stop.uninstall()
    assert signal.getsignal(signal.SIGTERM) is former
    signal.raise_signal(signal.SIGTERM)
    assert told == ["server"]


async def test_who_took_its_place_keeps_it(told: list[str]) -> None:
    stop = stop_signal(told)
    stop.install()

    def later(*_: object) -> None:
        told.append("later")

    signal.signal(signal.SIGTERM, later)
    stop.uninstall()
    assert signal.getsignal(signal.SIGTERM) is later


async def test_an_ignored_signal_stays_ignored(told: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stop_signal(told).install()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


async def test_outside_the_main_thread_nothing_is_installed(told: list[str]) -> None:
    former = signal.getsignal(signal.SIGTERM)
    stop = stop_signal(told)
    thread = threading.Thread(target=stop.install)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_loop_that_is_no_more_does_not_hold_up_the_end(told: list[str]) -> None:
    async def install() -> None:
        stop_signal(told).install()

    asyncio.run(install())
    signal.raise_signal(signal.SIGTERM)
    assert told == ["server"]
