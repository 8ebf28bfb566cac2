"""`manage.py tail_wal`: number committed changes and publish them to the server processes.

Run it twice or more: one leads, the others stand by (see `realtime.event_log.leadership`).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.db.utils import DatabaseError, InterfaceError

from realtime import conf
from realtime.bus.bus import Bus, Message
from realtime.event_log.batch import Batch
from realtime.event_log.leadership import Role
from realtime.event_log.sequencer import Look, Sequencer
from realtime.event_log.tailer import Tailer
from realtime.process import heartbeat
from realtime.topics.broadcast import PassingBatch
from realtime.topics.passing import PassingReader
from realtime.util.database_threads import close_connections

# Less than a lease, so that a leader keeps it although the layer does not answer.
_PUBLISH_SECONDS = 1.5


class Command(BaseCommand):
    help = (
        "Numbers committed changes and publishes them, until SIGTERM or SIGINT. "
        "Of several, one leads and the others stand by."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="number and publish what is there, with or without the lead, then exit",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        settings = conf.current()
        self._verbosity = int(options["verbosity"])
        asyncio.run(self._once(settings) if options["once"] else self._forever(settings))

    async def _once(self, settings: conf.Settings) -> None:
        publish = _publisher(Bus(settings.CHANNEL_LAYER, _ignore), asyncio.get_running_loop())
        tailer = Tailer(settings.DATABASE, settings.POLL_INTERVAL, publish)
        try:
            before, numbered, after = await asyncio.to_thread(_drain, tailer, settings.DATABASE)
        except (DatabaseError, InterfaceError, LookupError) as error:
            raise CommandError(
                f"The log cannot be read: {error}. Has `manage.py migrate` been run?"
            ) from None
        leader = before.lease.lead.leader
        beside = "" if before.lease.run_out or not leader else f", beside {leader}, which leads"
        self._say(f"Numbered {numbered} WAL {_entries(numbered)}{beside}.")
        if after.waiting:
            raise CommandError("Entries are left without a number.")

    async def _forever(self, settings: conf.Settings) -> None:
        loop = asyncio.get_running_loop()
        bus = Bus(settings.CHANNEL_LAYER, _ignore)
        ready = asyncio.Event()

        def on_role(role: Role) -> None:
            self._say_role(role)
            loop.call_soon_threadsafe(ready.set)

        publish = _publisher(bus, loop)
        tailer = Tailer(
            settings.DATABASE,
            settings.POLL_INTERVAL,
            publish,
            # The leader publishes for all servers; a standby would send every batch a second time.
            follow=False,
            on_role=on_role,
            passing=PassingReader(publish, shared=True).look,
        )
        if settings.embedded and self._verbosity:
            self.stderr.write(
                "The channel layer reaches this process only, so servers do not hear what is "
                "published here; each tails the log itself. See REALTIME['TAILER']."
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, tailer, loop)
        self._say(f"Tailing the WAL table as {tailer.id}. Stop with Ctrl-C.")
        keeper = asyncio.create_task(_keep_row(tailer, ready), name="rowcast-row")
        try:
            await asyncio.to_thread(tailer.run)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await close_connections()
        self._say("Stopped.")

    def _say_role(self, role: Role) -> None:
        if role.leading:
            self._say("Leading.")
        else:
            self._say(f"Standing by; {role.leader or 'nobody'} leads.")

    def _say(self, text: str) -> None:
        if self._verbosity:
            self.stdout.write(text)
            self.stdout.flush()

    def _stop(self, tailer: Tailer, loop: asyncio.AbstractEventLoop) -> None:
        # The current batch is finished; a second signal does not wait for it.
        tailer.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))


async def _keep_row(tailer: Tailer, ready: asyncio.Event) -> None:
    # Not before the tailer has found a database: looking for a SQLite file would create it.
    await ready.wait()
    await heartbeat.keep_tailer(tailer)


def _entries(number: int) -> str:
    return "entry" if number == 1 else "entries"


def _ignore(message: Message) -> None:
    """This process has no subscribers."""


def _publisher(bus: Bus, loop: asyncio.AbstractEventLoop) -> Callable[[Batch | PassingBatch], None]:
    def publish(batch: Batch | PassingBatch) -> None:
        future = asyncio.run_coroutine_threadsafe(bus.publish(batch), loop)
        try:
            future.result(_PUBLISH_SECONDS)
        except TimeoutError:
            # Cancelled, or it would delay the next publication.
            future.cancel()
            raise TimeoutError(f"no answer within {_PUBLISH_SECONDS} s") from None

    return publish


def _drain(tailer: Tailer, alias: str) -> tuple[Look, int, Look]:
    """The state of the log before, the count of entries that were numbered, the state after."""
    try:
        before = Sequencer().look(connections[alias])
        numbered = tailer.drain()
        return before, numbered, Sequencer().look(connections[alias])
    finally:
        connections[alias].close()
