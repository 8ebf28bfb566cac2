"""Sends the deliveries that wait, on an event loop.

Each webhook that has something to send has a task of its own, for some seconds at a time, and so
many tasks run at once. A slow receiver occupies one of them until its time-out; then its webhook
rests, longer after each failure. Several senders may run, in any processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from realtime import __version__, conf
from realtime.util.database_threads import (
    DATABASE_ERRORS,
    finish_in_database_thread,
    in_database_thread,
)
from realtime.util.outage_log import OutageLog
from realtime.webhooks import deliveries
from realtime.webhooks.answer import Answer
from realtime.webhooks.deliveries import Job
from realtime.webhooks.destination import read_allowed
from realtime.webhooks.post import Bounds, post
from realtime.webhooks.rules import BadWebhook, envelope_of
from realtime.webhooks.signing import signed

logger = logging.getLogger("realtime.webhooks")

AT_ONCE = 16
"""Requests under way in one process."""

_LOOK_SECONDS = 1.0
# A webhook gives way to others that wait after so long.
_SLICE_SECONDS = 10.0
_PRUNE_SECONDS = 600.0


class Sender:
    """One per process. `run` until it is cancelled."""

    def __init__(
        self,
        alias: str,
        *,
        at_once: int = AT_ONCE,
        bounds: Bounds | None = None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._alias = alias
        self._at_once = at_once
        self._bounds = bounds or Bounds()
        self._look_seconds = look_seconds
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._outage = OutageLog(
            logger,
            failing="webhooks are not sent: %s",
            failing_action="webhooks_failing",
            works="webhooks are sent again",
            works_action="webhooks_work",
        )
        self._prune_at = 0.0

    def wake(self) -> None:
        """There may be something to send. On the loop of `run`."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled. Goes on after failures of the database."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._look()
                    self._outage.worked()
                except DATABASE_ERRORS as error:
                    self._outage.failed(error)
                try:
                    async with asyncio.timeout(self._look_seconds):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        room = self._at_once - len(self._tasks)
        if room > 0:
            busy = tuple(self._tasks)
            for pk in await in_database_thread(deliveries.take, self._alias, self.id, room, busy):
                task = asyncio.create_task(self._serve(pk), name="rowcast-webhook")
                self._tasks[pk] = task
                task.add_done_callback(lambda _, pk=pk: self._ended(pk))  # type: ignore[misc]
        now = asyncio.get_running_loop().time()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_SECONDS
            while await in_database_thread(deliveries.prune, self._alias):
                await asyncio.sleep(0)

    def _ended(self, pk: int) -> None:
        del self._tasks[pk]
        self._wake.set()

    async def _serve(self, pk: int) -> None:
        """Send what is due of one webhook that this sender has, and give it back."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE_SECONDS
        try:
            while loop.time() < until:
                job = await in_database_thread(deliveries.next_job, self._alias, self.id, pk)
                if job is None:
                    break
                answer = await self._send(job)
                if answer is None:
                    break
                await in_database_thread(
                    deliveries.record, self._alias, job, answer, random.random()
                )
        except DATABASE_ERRORS as error:
            self._outage.failed(error)
        except Exception as error:
            # A row that the code does not expect must not be sent again and again.
            logger.error(
                "sending of webhook %s failed",
                pk,
                exc_info=error,
                extra={"action": "webhook_sender_failed"},
            )
            with contextlib.suppress(*DATABASE_ERRORS):
                await in_database_thread(deliveries.rest, self._alias, pk)
        finally:
            # Also at the end of the process: another one need not wait for the lease then.
            with contextlib.suppress(*DATABASE_ERRORS):
                await finish_in_database_thread(
                    lambda: deliveries.release(self._alias, self.id, pk)
                )

    async def _send(self, job: Job) -> Answer | None:
        """One attempt. None where the webhook's row cannot be sent to, which disables it."""
        try:
            envelope = await in_database_thread(envelope_of, job.webhook)
            body, _withheld = deliveries.body_now(job.delivery)
            return await post(
                envelope.destination,
                headers_of(job, envelope.headers, body, datetime.now(UTC)),
                body,
                read_allowed(conf.current().WEBHOOK_ALLOW),
                bounds=self._bounds,
            )
        except BadWebhook as error:
            reason = f"It cannot be sent. {error}"
            await in_database_thread(deliveries.disable, job.webhook, reason)
            if job.delivery.by_hand:
                return Answer(error=reason)
            return None


def headers_of(job: Job, own: Mapping[str, str], body: bytes, at: datetime) -> dict[str, str]:
    """The headers of one attempt with this body. Raises BadSecret."""
    webhook = job.webhook
    keys = [webhook.secret]
    until = webhook.former_until
    if webhook.former_secret and until is not None and until.timestamp() > at.timestamp():
        keys.append(webhook.former_secret)
    return {
        "content-type": "application/json",
        "user-agent": f"Rowcast-Webhooks/{__version__}",
        **own,
        **signed(job.delivery.delivery_id, at, body, keys),
    }
