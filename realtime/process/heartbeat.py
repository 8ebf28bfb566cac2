"""Renews the row of this process while the process runs.

Each server, tailer and worker runs one task that writes the process's figures into its row and
extends its lease. Decides nothing; `registry` owns the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from realtime import conf
from realtime.event_log.read_holds import holds
from realtime.event_log.tailer import Tailer
from realtime.models import Process
from realtime.process.maintenance import Maintenance
from realtime.process.registry import Registration, Report
from realtime.util.database_threads import (
    DATABASE_ERRORS,
    finish_in_database_thread,
    in_database_thread,
)
from realtime.util.outage_log import OutageLog

logger = logging.getLogger("realtime.processes")


@dataclass(frozen=True, slots=True)
class HeartbeatTiming:
    """Seconds: the row is renewed every `renew`; a read hold on older entries renews it at once,
    but not sooner than `announce` after the last time."""

    renew: float = 5.0
    announce: float = 0.5


USUAL = HeartbeatTiming()


class Monitor(Protocol):
    """Something of a server process that looks at the database now and then."""

    async def look(self) -> None: ...


async def keep(
    id_: str,
    report: Callable[[], Report],
    on_new_row: Callable[[], None],
    monitors: Collection[Monitor],
    timing: HeartbeatTiming = USUAL,
) -> None:
    """Keep the row of a server process until cancelled. After each renewal the monitors look, and
    `on_new_row` is called if the row had to be made."""
    alias = conf.current().DATABASE
    registration = Registration(alias, id_, Process.Kind.SERVER)
    maintenance = Maintenance(alias)

    async def after_renewal(written: Report) -> None:
        await maintenance.beat(written)
        for monitor in monitors:
            await monitor.look()

    try:
        await keep_row(registration, report, after_renewal, on_new_row, timing)
    finally:
        await maintenance.close()


async def keep_tailer(tailer: Tailer) -> None:
    """Keep the row of a tailer process until cancelled."""
    alias = conf.current().DATABASE
    registration = Registration(alias, tailer.id, Process.Kind.TAILER)
    maintenance = Maintenance(alias)

    def report() -> Report:
        return Report(position=tailer.position, tailing=True, leading=tailer.leading)

    try:
        await keep_row(registration, report, maintenance.beat)
    finally:
        await maintenance.close()


async def keep_row(
    registration: Registration,
    report: Callable[[], Report],
    after_renewal: Callable[[Report], Awaitable[None]] | None = None,
    on_new_row: Callable[[], None] = lambda: None,
    timing: HeartbeatTiming = USUAL,
) -> None:
    """Renew a row until cancelled, then delete it.

    Goes on while the database fails; one line is logged when it fails and one when it works again.
    """
    loop = asyncio.get_running_loop()
    renew_now = asyncio.Event()

    def hold_lowered() -> None:
        # Called by reading threads, which may outlive the loop.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(renew_now.set)

    end_callback = holds.on_lower(hold_lowered)
    outage = OutageLog(
        logger,
        failing="the row of this process cannot be renewed: %s",
        failing_action="lease_failing",
        works="the row can be renewed again",
        works_action="lease_works",
    )
    try:
        while True:
            renew_now.clear()
            written = None
            try:
                written = report()
                try:
                    existed = await in_database_thread(registration.renew, written)
                except DATABASE_ERRORS as error:
                    outage.failed(error)
                else:
                    outage.worked()
                    if not existed:
                        on_new_row()
                    if after_renewal is not None:
                        await after_renewal(written)
            except Exception:
                # Without its row the process counts as dead, and its presence rows are deleted.
                logger.exception("a renewal failed", extra={"action": "lease_failing"})
            await asyncio.sleep(timing.announce)
            with contextlib.suppress(Exception):  # of a report, which the next renewal logs
                # A tailer that began with the process takes the lead now, and is not to be shown as
                # one that stands by.
                if written is not None and report().leading is not written.leading:
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timing.renew - timing.announce):
                    await renew_now.wait()
    finally:
        end_callback()
        # If this fails, the row goes when its lease expires.
        with contextlib.suppress(*DATABASE_ERRORS):
            await finish_in_database_thread(registration.leave)
