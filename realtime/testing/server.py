"""A server in the test's process: a hub and a sequencer, which start and end with the test.

All database work is done in one thread, the one in which the test's own ORM calls run. So there are
no two connections that could lock each other out of a SQLite database in memory, none that is left
open, and nothing that runs while the test looks at its rows. The sequencer is a task of the test's
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.conf import settings as django_settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings
from django.utils.module_loading import import_string

from realtime import conf
from realtime.dispatcher.head_monitor import MonitorTiming
from realtime.event_log.batch import Batch
from realtime.event_log.table import backlog
from realtime.event_log.tailer import Tailer
from realtime.process import hub as hubs
from realtime.process.hub import Hub
from realtime.testing.channel import Channel
from realtime.testing.client import Client
from realtime.testing.credential import signing_settings, token_for
from realtime.testing.diagnosis import why_nothing
from realtime.testing.preconditions import capturing, needs_commits
from realtime.util.database_threads import DATABASE_ERRORS, in_database_thread, work_elsewhere
from realtime.wal.head import read_head

logger = logging.getLogger("realtime.testing")

_SETTLE_SECONDS = 30.0
_LOOK_SECONDS = 0.01
# A batch that the layer lost is missed at once.
_QUICK = MonitorTiming(fed=0.1, alone=0.05)
_IN_MEMORY = "channels.layers.InMemoryChannelLayer"


class RealtimeServer:
    """Called with a user or a token it returns a connected client: `await server(user=alice)`.

    Starts with the first client. `prepare` and `restore` are called before and after it, outside
    of anything that overrides settings inside.
    """

    def __init__(self) -> None:
        self._overrides: override_settings | None = None
        self._hub: Hub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alias = ""
        self._clients: list[Client] = []
        self._sequencer: asyncio.Task[None] | None = None
        self._tailer: Tailer | None = None
        self._batches: list[Batch] = []
        self._one_look = asyncio.Lock()

    # --- settings -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A channel layer of this process, and a secret to sign tokens with."""
        alias = conf.current().CHANNEL_LAYER
        layers = dict(getattr(django_settings, "CHANNEL_LAYERS", {}))
        if not _in_memory(layers.get(alias, {}).get("BACKEND", _IN_MEMORY)):
            layers[alias] = {"BACKEND": _IN_MEMORY}
        changed: dict[str, Any] = {"CHANNEL_LAYERS": layers}
        signing = signing_settings(dict(getattr(django_settings, "AUTH_RLS", {})))
        if signing is not None:
            changed["AUTH_RLS"] = signing
        self._overrides = override_settings(**changed)
        self._overrides.enable()

    def restore(self) -> None:
        """Take the settings back."""
        overrides, self._overrides = self._overrides, None
        if overrides is not None:
            overrides.disable()

    # --- start and stop -------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it runs on; None while it does not run."""
        return self._loop

    async def start(self, run: Callable[[Callable[[], Any]], Any] | None = None) -> None:
        """Start on the running loop, unless started. `run` does the database work; by default the
        thread of the test's own ORM calls. Raises SetupError."""
        if self._hub is not None:
            return
        self._alias = conf.current().DATABASE
        needs_commits(self._alias)
        await hubs.close_hub()
        work_elsewhere(run or _in_the_tests_thread)
        try:
            await in_database_thread(self._ready)
        except BaseException:
            work_elsewhere(None)
            raise
        self._loop = asyncio.get_running_loop()
        here = hubs.hub()
        # This server numbers by itself, in a task.
        here.embedded = False
        here.dispatcher.monitor.timing = _QUICK
        self._hub = here
        self.start_sequencer()
        await self._look()
        await here.ready()

    async def stop(self) -> None:
        """Close every client and end whatever was started."""
        if self._hub is None:
            return
        try:
            for client in self._clients:
                await client.close()
        finally:
            self._clients.clear()
            await self.kill_sequencer()
            await hubs.close_hub()
            await in_database_thread(_close_connections)
            work_elsewhere(None)
            self._hub = self._loop = None

    def _ready(self) -> None:
        needs_commits(self._alias)
        capturing()

    # --- clients --------------------------------------------------------------------------------

    async def __call__(
        self,
        user: Any = None,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """A connected client of this Django user or `Subject`, or with this token or API key;
        anonymous without either. `headers` are those of the handshake.

        Raises Refused where the server refuses the connection, SetupError where none can run.
        """
        if user is not None and token is not None:
            raise TypeError("a client has a user or a token, not both")
        await self.start()
        asker = user
        if user is not None:
            token = await in_database_thread(token_for, user)
        client = Client(self, asker)
        await client.connect(token, headers)
        self._clients.append(client)
        return client

    # --- the log --------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Return when all that is committed has a number and has been handed out; while the
        sequencer is dead, when what has a number has been. Raises TimeoutError after 30 seconds."""
        assert self._hub is not None
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                if self._sequencer is not None:
                    await self._look()
                waiting, head = await in_database_thread(self._pending)
                numbered = not waiting or self._sequencer is None
                if numbered and self._hub.position.seq >= head:
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def why_nothing(self, asker: Any, channel: Channel, model: Any) -> str:
        """What may help with a change of the model that did not come on a channel."""
        if self._sequencer is None:
            return "The sequencer is dead: start_sequencer() starts another one."
        return await in_database_thread(why_nothing, self._alias, asker, channel.since, model)

    async def kill_sequencer(self, *, numbering: bool = False) -> None:
        """Let the sequencer die: nothing is numbered any more. With `numbering` it dies between
        its two steps: it has numbered what is committed, and has published nothing of it."""
        task, self._sequencer = self._sequencer, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if numbering and self._tailer is not None:
            await in_database_thread(self._tailer.drain)
        self._batches.clear()
        self._tailer = None

    def start_sequencer(self) -> None:
        """Start another sequencer, which takes nothing over from the one before."""
        if self._sequencer is None:
            interval = conf.current().POLL_INTERVAL
            self._tailer = Tailer(self._alias, interval, self._batches.append)
            work = self._sequence(interval)
            self._sequencer = asyncio.create_task(work, name="rowcast-testing-sequencer")

    async def _sequence(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                await self._look()
            except DATABASE_ERRORS as error:
                logger.warning(
                    "the log cannot be read: %s", error, extra={"action": "tail_failing"}
                )

    async def _look(self) -> None:
        """Number what is committed, and publish it."""
        async with self._one_look:
            tailer, here = self._tailer, self._hub
            if tailer is None or here is None:
                return
            await in_database_thread(tailer.drain)
            batches = list(self._batches)
            self._batches.clear()
            for batch in batches:
                # What the layer loses is read from the log.
                with contextlib.suppress(Exception):
                    await here.bus.publish(batch)

    def _pending(self) -> tuple[int, int]:
        connection = connections[self._alias]
        return backlog(connection), read_head(connection).seq


async def _in_the_tests_thread(call: Callable[[], Any]) -> Any:
    return await sync_to_async(call, thread_sensitive=True)()


def _in_memory(backend: str) -> bool:
    try:
        found = import_string(backend)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, InMemoryChannelLayer)


def _close_connections() -> None:
    """Close the connections of this thread, unless it is the main one, which the test runner looks
    after."""
    if threading.current_thread() is threading.main_thread():
        return
    for connection in connections.all(initialized_only=True):
        # Django leaves one to a database in memory open, which holds nothing here that counts.
        BaseDatabaseWrapper.close(connection)
