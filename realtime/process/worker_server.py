"""The server behind `manage.py runworker realtime`, in place of Channels' own.

Channels' server ends when its layer fails once, and with redis-py 8 a core layer that is idle for
five seconds fails. Ours does not read the layer for the channel `realtime`: it starts the worker at
once, and again if it should fail, and the worker receives through a mailbox that outlives its
layer. Other channels of the same command are served as Channels does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from channels.worker import Worker

from realtime.process.worker_messages import WORKERS


class WorkerServer(Worker):
    """Channels' server of workers, with a worker for `realtime` that outlives failures."""

    look_seconds = 5.0

    async def handle(self) -> None:
        listeners = [asyncio.ensure_future(self.listener(channel)) for channel in self.channels]
        # The first failure ends all listeners: otherwise the one that never fails would hide it.
        await asyncio.gather(*listeners)

    async def listener(self, channel: str) -> Any:
        if channel != WORKERS:
            return await super().listener(channel)
        scope = {"type": "channel", "channel": channel}
        while True:
            # Made anew if it has failed, which Channels has logged.
            queue = self.get_or_create_application_instance(channel, scope)
            await queue.put({"type": "wake"})
            await asyncio.sleep(self.look_seconds)


def install() -> None:
    """Let `manage.py runworker` use this server, unless the project has set one of its own."""
    from channels.management.commands import runworker

    if runworker.Command.worker_class is Worker:
        runworker.Command.worker_class = WorkerServer
