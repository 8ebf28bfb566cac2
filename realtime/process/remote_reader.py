"""Reads long ranges of the log through a worker, so that a server's own threads stay free.

A range of more than a few thousand events is read chunk by chunk from a running worker. If the
worker does not answer in time, the server reads the range itself and avoids that worker for a
while. Both ways give the same events (RT-E1).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from itertools import count
from typing import Any

from realtime.bus.mailbox import Mailbox
from realtime.event_log.event import DatabaseEvent
from realtime.event_log.reader import LogReader
from realtime.process import registry
from realtime.process.worker_messages import Answer, box_of, decode_answer
from realtime.util.database_threads import in_database_thread

logger = logging.getLogger("realtime.reading")

DEEP = 5_000
_ANSWER_SECONDS = 2.0
_FORGET_SECONDS = 5.0
_AVOID_SECONDS = 30.0


class RemoteReader:
    """Reads ranges of more than `deep` events through a worker, others by `reader`. On one event
    loop. A worker has `answer_seconds` to answer."""

    def __init__(
        self,
        reader: LogReader,
        alias: str,
        layer: str,
        deep: int = DEEP,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self.deep = deep
        self._reader = reader
        self._alias = alias
        self._answer_seconds = answer_seconds
        self._mailbox = Mailbox(layer, f"realtime.reply.{secrets.token_hex(8)}", self._take)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._workers: list[str] = []
        self._workers_at = float("-inf")
        self._avoided: dict[str, float] = {}

    async def from_table(self, after: int, upto: int) -> list[DatabaseEvent]:
        """Some of the events right after `after`; none if the next one has been pruned.

        Raises what the database raises.
        """
        if upto - after > self.deep:
            answer = await self._ask(after, upto)
            if answer is not None:
                self._reader.learn(answer.relations)
                return self._reader.events(answer.rows)
        return await self._reader.from_table(after, upto)

    async def close(self) -> None:
        """Close the mailbox."""
        await self._mailbox.close()

    async def _ask(self, after: int, upto: int) -> Answer | None:
        worker = await self._worker()
        if worker is None:
            return None
        await self._mailbox.open()
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(self._answer_seconds):
                question = {"type": "read", "id": number, "reply": self._mailbox.name}
                await self._mailbox.send(box_of(worker), {**question, "after": after, "upto": upto})
                answer = await future
        except Exception as error:
            self._avoid(worker, str(error) or type(error).__name__)
            return None
        finally:
            del self._waiting[number]
        if answer.error:
            self._avoid(worker, answer.error)
            return None
        # An answer that begins at another event would leave a gap: read the table instead.
        fits = not answer.rows or answer.rows[0].seq == after + 1
        return answer if fits else None

    async def _worker(self) -> str | None:
        now = asyncio.get_running_loop().time()
        if now - self._workers_at > _FORGET_SECONDS:
            self._workers = await in_database_thread(registry.workers, self._alias)
            self._workers_at = now
            self._avoided = {id_: until for id_, until in self._avoided.items() if until > now}
        able = [id_ for id_ in self._workers if self._avoided.get(id_, 0.0) <= now]
        return random.choice(able) if able else None

    def _avoid(self, worker: str, reason: str) -> None:
        self._avoided[worker] = asyncio.get_running_loop().time() + _AVOID_SECONDS
        logger.warning(
            "worker %s does not answer (%s); this server reads the log itself",
            worker,
            reason,
            extra={"action": "worker_silent"},
        )

    def _take(self, message: dict[str, Any]) -> None:
        answer = decode_answer(message["b"])
        future = self._waiting.get(answer.id)
        if future is not None and not future.done():
            future.set_result(answer)
