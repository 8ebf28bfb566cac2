"""`manage.py handlers list|run|pause|resume|replay|skip`: the handlers of changes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import DatabaseError, InterfaceError

from realtime import conf
from realtime.event_log.tailer import Tailer
from realtime.handling import operations, registry
from realtime.handling.operations import CannotDo
from realtime.handling.overview import HandlerState, overview
from realtime.handling.runner import Runner
from realtime.process import heartbeat
from realtime.util.database_threads import close_connections
from realtime.webhooks.sending import Sending

_STOP_SECONDS = 20.0
_SHOWN = ("name", "state", "seq", "lag", "error")


class Command(BaseCommand):
    help = "Lists and runs handlers of changes, and lets them pause, go on, replay or skip."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="every handler, and how it stands")
        listing.add_argument("--json", action="store_true", help="a JSON list, for programs")
        run = actions.add_parser("run", help="run handlers until SIGTERM or SIGINT")
        run.add_argument("names", nargs="*", metavar="NAME", help="only these")
        for name, what in (
            ("pause", "let a handler do nothing until it is resumed"),
            ("resume", "let a handler go on that was paused or stands still"),
            ("skip", "leave out the change that a handler stands at, and go on"),
        ):
            actions.add_parser(name, help=what).add_argument("name", metavar="NAME")
        replay = actions.add_parser("replay", help="give a handler changes again")
        replay.add_argument("name", metavar="NAME")
        replay.add_argument(
            "--from",
            dest="first",
            type=int,
            required=True,
            metavar="SEQ",
            help="the seq of the first change to give again",
        )

    def handle(self, *, action: str, verbosity: int, **options: Any) -> None:
        alias = conf.current().DATABASE
        try:
            if action == "list":
                self._list(overview(alias), options["json"])
            elif action == "run":
                self._run(options["names"], verbosity)
            else:
                said = _act(action, alias, options)
                if verbosity:
                    self.stdout.write(said)
        except CannotDo as error:
            raise CommandError(str(error)) from None
        except (DatabaseError, InterfaceError, LookupError) as error:
            raise CommandError(
                f"The log cannot be read: {error}. Has `manage.py migrate` been run?"
            ) from None

    def _list(self, states: Sequence[HandlerState], as_json: bool) -> None:
        if as_json:
            shown = [dataclasses.asdict(state) for state in states]
            self.stdout.write(json.dumps(shown, indent=2))
            return
        if not states:
            self.stdout.write("There are no handlers. See realtime.on_change.")
            return
        rows = [_SHOWN, *(tuple(_cell(getattr(s, name)) for name in _SHOWN) for s in states)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_SHOWN) - 1)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.stdout.write("  ".join([*cells, row[-1]]).rstrip())

    def _run(self, names: Sequence[str], verbosity: int) -> None:
        known = {definition.name for definition in registry.definitions()}
        for name in names:
            if name not in known:
                raise CannotDo(operations.unknown(name, known))
        if not known:
            raise CannotDo("There are no handlers. See realtime.on_change.")
        settings = conf.current()
        runner = Runner(settings.DATABASE, settings.POLL_INTERVAL, names=names or None)
        asyncio.run(self._forever(settings, runner, verbosity))

    async def _forever(self, settings: conf.Settings, runner: Runner, verbosity: int) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def on_signal() -> None:
            stop.set()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            signal.signal(signal.SIGINT, lambda *_: sys.exit(130))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        if verbosity:
            self.stdout.write(f"Running handlers as {runner.id}. Stop with Ctrl-C.")
            self.stdout.flush()
        tailing = asyncio.create_task(_tail(settings, runner)) if settings.embedded else None
        runner.start()
        webhooks = Sending(settings.DATABASE)
        webhooks.start()
        try:
            await stop.wait()
        finally:
            await asyncio.to_thread(runner.stop, _STOP_SECONDS)
            await asyncio.to_thread(webhooks.stop, _STOP_SECONDS)
            if tailing is not None:
                tailing.cancel()
                await asyncio.gather(tailing, return_exceptions=True)
            await close_connections()
        if verbosity:
            self.stdout.write("Stopped.")


async def _tail(settings: conf.Settings, runner: Runner) -> None:
    """In the embedded shape each process numbers the log, or stands by to do so."""
    tailer = Tailer(settings.DATABASE, settings.POLL_INTERVAL, lambda _: runner.wake())
    keeper = asyncio.create_task(heartbeat.keep_tailer(tailer), name="rowcast-row")
    running = asyncio.ensure_future(asyncio.to_thread(tailer.run))
    try:
        await asyncio.shield(running)
    finally:
        tailer.stop()
        keeper.cancel()
        await asyncio.gather(running, keeper, return_exceptions=True)


def _act(action: str, alias: str, options: dict[str, Any]) -> str:
    if action == "replay":
        return operations.replay(alias, options["name"], options["first"])
    actions: dict[str, Callable[[str, str], str]] = {
        "pause": operations.pause,
        "resume": operations.resume,
        "skip": operations.skip,
    }
    return actions[action](alias, options["name"])


def _cell(value: object) -> str:
    return "-" if value is None else " ".join(str(value).split())
