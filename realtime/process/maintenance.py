"""The leader's duties beside numbering: partitions of the log, pruning, and waking workers.

A worker prunes if one runs, else the leader itself, chunk by chunk in a database thread. The wake
message is for a project with a worker server of its own: Channels starts a consumer with the first
message for it. `realtime.process.worker_server` does not need the message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from datetime import timedelta

from realtime import conf
from realtime.bus.layers import reaches_others
from realtime.bus.mailbox import Mailbox
from realtime.process import pruning, registry, retention
from realtime.process.partition_upkeep import PartitionUpkeep
from realtime.process.pruning import AnotherPrunes, Pruned
from realtime.process.registry import Report
from realtime.process.retention import Retention
from realtime.process.worker_messages import WORKERS, box_of
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread

logger = logging.getLogger("realtime.upkeep")

PRUNE_SECONDS = 600.0
_SIZE_SECONDS = 60.0
# With a short retention, the runs in its course: entries are kept too long by a part of it only.
_TIMES_IN_RETENTION = 4
# A process that has just started has other work.
_FIRST_SECONDS = 60.0


class Maintenance:
    """One per process that may lead, on its event loop."""

    def __init__(self, alias: str, first_seconds: float = _FIRST_SECONDS) -> None:
        """`first_seconds`: when a new leader prunes for the first time."""
        self._alias = alias
        self._first_seconds = first_seconds
        layer = conf.current().CHANNEL_LAYER
        self._reaches = reaches_others(layer)
        self._mailbox = Mailbox(layer, f"realtime.upkeep.{secrets.token_hex(8)}", _ignore)
        self._due = 0.0
        self._led = False
        self._partitions = PartitionUpkeep(alias)
        self._pruning: asyncio.Task[Pruned | None] | None = None

    async def beat(self, report: Report) -> None:
        """Called after each renewal of the process row; does nothing unless this process leads."""
        now = asyncio.get_running_loop().time()
        if not report.leading:
            self._led = False
            return
        if not self._led:
            self._led = True
            self._due = now + self._first_seconds
        await self._send(WORKERS, {"type": "wake"})
        with contextlib.suppress(*DATABASE_ERRORS):
            await in_database_thread(self._partitions.look)
        if now >= self._due:
            self._due = now + prune_pause(retention.configured())
            await self.prune()

    async def prune(self) -> None:
        """Let a worker prune the log, or start pruning it here."""
        try:
            workers = await in_database_thread(registry.workers, self._alias)
        except DATABASE_ERRORS:
            return
        if workers and await self._send(box_of(random.choice(workers)), {"type": "prune"}):
            return
        if self._pruning is None or self._pruning.done():
            self._pruning = asyncio.create_task(prune_gently(self._alias), name="rowcast-prune")

    async def close(self) -> None:
        """Stop pruning and close the mailbox."""
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.gather(self._pruning, return_exceptions=True)
        await self._mailbox.close()

    async def _send(self, channel: str, message: dict[str, str]) -> bool:
        if not self._reaches:
            return False
        try:
            await self._mailbox.send(channel, message)
        except Exception as error:
            # The bus logs outages; a full queue means that no worker runs.
            logger.debug("not sent to %s: %s", channel, error, extra={"action": "errand_unsent"})
            return False
        return True


def prune_pause(kept: Retention) -> float:
    """Seconds from one run to the next: PRUNE_SECONDS, or less where retention is short, and where
    it is a size, which a burst of changes may reach soon."""
    pause = PRUNE_SECONDS if kept.size is None else _SIZE_SECONDS
    if kept.age is not None:
        pause = min(pause, kept.age.total_seconds() / _TIMES_IN_RETENTION)
    return pause


async def prune_gently(alias: str, older_than: timedelta | None = None) -> Pruned | None:
    """Prune once, with a pause between chunks that frees the database thread; by RETENTION, whole
    partitions where that is to be expected. None when it could not be finished; the reason is
    logged."""
    steps = pruning.steps(alias, older_than, whole_partitions=older_than is None)
    pruned = Pruned(0, 0)
    try:
        while (step := await in_database_thread(next, steps, None)) is not None:
            pruned = step
            await asyncio.sleep(pruned.rest)
    except AnotherPrunes:
        return None
    except DATABASE_ERRORS as error:
        logger.warning("pruning stopped: %s", error, extra={"action": "prune_failed"})
        return None
    if pruned.entries or pruned.relations or pruned.history:
        logger.info(
            "pruned %s entries, %s relations and %s entries of histories",
            pruned.entries,
            pruned.relations,
            pruned.history,
            extra={"action": "pruned"},
        )
    return pruned


def _ignore(message: dict[str, object]) -> None:
    """A leader receives nothing."""
