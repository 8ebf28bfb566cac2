"""Keeps the row of this process alive for as long as the process is.

Every server, tailer and worker runs one task that reports what the process does and extends its
lease. Never decides what a process does; the rows are those of `realtime.roster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from realtime import conf
from realtime.event_log.read_holds import holds
from realtime.models import Process
from realtime.process.maintenance import Maintenance
from realtime.process.registry import Registration, Report
from realtime.util.database_threads import (
    DATABASE_ERRORS,
    finish_in_database_thread,
    in_database_thread,
)

if TYPE_CHECKING:
    from realtime.event_log.tailer import Tailer
    from realtime.process.hub import Hub

logger = logging.getLogger("realtime.processes")

RENEW_SECONDS = 5.0
# A hold that sinks is announced at once, but a storm of them not more often than this.
_ANNOUNCE_SECONDS = 0.5


async def keep(hub: Hub) -> None:
    """Keep the row of a server process until cancelled."""
    alias = conf.current().DATABASE
    registration = Registration(alias, hub.id, Process.Kind.SERVER)
    upkeep = Maintenance(alias)
    try:
        await keep_row(
            registration, lambda: _of_server(hub), upkeep.beat, born=hub.presence.registered
        )
    finally:
        await upkeep.close()


async def keep_tailer(tailer: Tailer) -> None:
    """Keep the row of a tailer process until cancelled."""
    alias = conf.current().DATABASE
    registration = Registration(alias, tailer.id, Process.Kind.TAILER)
    upkeep = Maintenance(alias)
    try:
        await keep_row(registration, lambda: _of_tailer(tailer), upkeep.beat)
    finally:
        await upkeep.close()


async def keep_row(
    registration: Registration,
    report: Callable[[], Report],
    beat: Callable[[Report], Awaitable[None]] | None = None,
    born: Callable[[], None] = lambda: None,
) -> None:
    """Renew a row until cancelled, then delete it. `beat` is awaited after every renewal, `born`
    called after one that made the row.

    Outlives the database; one line is logged when it fails and one when it works again.
    """
    loop = asyncio.get_running_loop()
    sunk = asyncio.Event()

    def sink() -> None:
        # Called by readers, which a loop that has ended must not trouble.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(sunk.set)

    unwatch = holds.watch(sink)
    failing = False
    try:
        while True:
            sunk.clear()
            said = report()
            try:
                kept = await in_database_thread(registration.renew, said)
            except DATABASE_ERRORS as error:
                if not failing:
                    logger.warning(
                        "the row of this process cannot be renewed: %s",
                        error,
                        extra={"action": "lease_failing"},
                    )
                failing = True
            else:
                if failing:
                    logger.info("the row can be renewed again", extra={"action": "lease_works"})
                failing = False
                if not kept:
                    born()
                if beat is not None:
                    await beat(said)
            await asyncio.sleep(_ANNOUNCE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS - _ANNOUNCE_SECONDS):
                    await sunk.wait()
    finally:
        unwatch()
        # Without this the row goes when its lease runs out.
        with contextlib.suppress(*DATABASE_ERRORS):
            await finish_in_database_thread(registration.leave)


def _of_server(hub: Hub) -> Report:
    dispatcher = hub.dispatcher
    tailer = hub.tailer
    return Report(
        position=hub.position.seq,
        connections=hub.connections,
        channels=dispatcher.topics.listeners,
        subscriptions=len(dispatcher.subscribers),
        tailing=tailer is not None,
        leading=tailer is not None and tailer.leading,
        counters=dispatcher.counters.flat(),
    )


def _of_tailer(tailer: Tailer) -> Report:
    return Report(position=tailer.position, tailing=True, leading=tailer.leading)
