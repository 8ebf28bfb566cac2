"""`manage.py runworker realtime`: heavy reading, pruning, handlers and webhooks, away from the
processes with sockets.

The command starts the consumer (see `worker_server`). From then on this process has a row, by which
servers find it, and a mailbox of its own, so that a request reaches exactly one worker on any
layer. Numbers nothing and has no sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from channels.consumer import AsyncConsumer

from realtime import conf
from realtime.bus.mailbox import Mailbox
from realtime.event_log.table import read_rows, relations
from realtime.handling import registry as handlers
from realtime.handling.runner import Runner
from realtime.models import Process
from realtime.process.heartbeat import USUAL, HeartbeatTiming, keep_row
from realtime.process.maintenance import prune_gently
from realtime.process.registry import Registration, Report
from realtime.process.worker_messages import ANSWER_TYPE, Answer, box_of, encode_answer
from realtime.util.database_threads import (
    DATABASE_ERRORS,
    finish_in_database_thread,
    in_database_thread,
)
from realtime.webhooks.sending import Sending

logger = logging.getLogger("realtime.worker")

_AT_ONCE = 2
# Requests beyond this would be answered after their server has given up.
_WAITING = 64
# Seconds after SIGTERM until tasks that have not ended are cancelled again.
_AGAIN_SECONDS = 5.0
_ANSWER_BYTES = 1_048_576
# For attempts of handlers to end.
_HANDLERS_SECONDS = 8.0


class RealtimeWorker(AsyncConsumer):
    """One per worker process. Messages: `wake`, `prune`, and `read` with `id`, `reply` (the
    channel of the server), `after` and `upto`.

    `answer_bytes` is how many bytes of row images go in one answer; a single larger row goes alone.
    `timing` is that of the row of this process.
    """

    def __init__(self, answer_bytes: int = _ANSWER_BYTES, timing: HeartbeatTiming = USUAL) -> None:
        self._answer_bytes = answer_bytes
        self._timing = timing

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        settings = conf.current()
        self.scope = scope
        self.id = secrets.token_hex(8)
        self._alias = settings.DATABASE
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._jobs: set[asyncio.Task[None]] = set()
        self._pruning = False
        self._reads = 0
        self._prunes = 0
        self._mailbox = Mailbox(settings.CHANNEL_LAYER, box_of(self.id), self._take)
        runner = None
        if handlers.are_known():
            runner = Runner(settings.DATABASE, settings.POLL_INTERVAL)
            runner.start()
        webhooks = Sending(settings.DATABASE)
        webhooks.start()
        registration = Registration(self._alias, self.id, Process.Kind.WORKER)
        keeper = asyncio.create_task(
            keep_row(registration, self._report, timing=self._timing), name="rowcast-row"
        )
        logger.info("worker %s is ready", self.id, extra={"action": "worker_ready"})
        try:
            with ending_on_sigterm():
                await self._mailbox.open()
                while True:
                    self._take(await receive())
        finally:
            tasks = [keeper, *self._jobs]
            for task in tasks:
                task.cancel()
            if runner is not None:
                await finish_in_database_thread(partial(runner.stop, _HANDLERS_SECONDS))
            await finish_in_database_thread(partial(webhooks.stop, _HANDLERS_SECONDS))
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._mailbox.close()
            logger.info("worker %s has ended", self.id, extra={"action": "worker_ended"})

    def _report(self) -> Report:
        return Report(counters={"reads": self._reads, "prunes": self._prunes})

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "wake"}:
                return
            case {"type": "prune"}:
                if not self._pruning:
                    self._pruning = True
                    self._start(self._prune())
            case {
                "type": "read",
                "id": int(number),
                "reply": str(reply),
                "after": int(after),
                "upto": int(upto),
            }:
                if len(self._jobs) < _WAITING:
                    self._start(self._read(number, reply, after, upto))
            case _:
                logger.warning(
                    "a message that no worker knows: %.200r",
                    message,
                    extra={"action": "worker_unknown_message"},
                )

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job, name="rowcast-job")
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job failed", exc_info=error, extra={"action": "job_failed"})

    async def _prune(self) -> None:
        try:
            await prune_gently(self._alias)
            self._prunes += 1
        finally:
            self._pruning = False

    async def _read(self, number: int, reply: str, after: int, upto: int) -> None:
        async with self._slots:
            try:
                rows = await in_database_thread(read_rows, self._alias, after, upto)
            except DATABASE_ERRORS as error:
                answer = Answer(number, [], [], str(error) or type(error).__name__)
            else:
                rows = (
                    _bounded(rows, self._answer_bytes) if rows and rows[0].seq == after + 1 else []
                )
                used = sorted({row.relation_id for row in rows})
                answer = Answer(number, rows, [relations[id_] for id_ in used])
            body = encode_answer(answer)
        try:
            await self._mailbox.send(reply, {"type": ANSWER_TYPE, "b": body})
            self._reads += 1
        except Exception as error:
            # The server reads the log itself.
            logger.warning("not answered: %s", error, extra={"action": "answer_unsent"})


def _bounded(rows: list[Any], most: int) -> list[Any]:
    """The first rows that fit into one answer, at least one."""
    size = 0
    for index, row in enumerate(rows):
        size += len(row.old or b"") + len(row.new or b"")
        if size > most and index:
            return rows[:index]
    return rows


@contextlib.contextmanager
def ending_on_sigterm(again_seconds: float = _AGAIN_SECONDS) -> Any:
    """While the block runs, SIGTERM ends the process as Ctrl-C does. Channels' runworker only
    handles SIGINT, so SIGTERM would end the process in the middle of its work."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_later(again_seconds, again)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell starts its background jobs so. asyncio then takes no Ctrl-C from a signal.
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    def again() -> None:
        # runworker cancels all tasks once, and a client library that waits for its server may take
        # that for a time-out of its own, and go on.
        for task in asyncio.all_tasks(loop):
            # The number of cancellation requests stays one: by it asyncio.run tells Ctrl-C from a
            # failure.
            if task.cancelling():
                task.uncancel()
            task.cancel()
        loop.call_later(again_seconds, again)

    try:
        loop.add_signal_handler(signal.SIGTERM, end)
    except NotImplementedError:
        # This event loop takes no signal handlers, as on Windows. Ctrl-C works there.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
