"""`realtime_triggers list|install|uninstall|check`: the capture triggers of a database."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from realtime.management.database_option import add_database_option, alias_of
from realtime.wal import triggers as install
from realtime.wal.triggers import State, Trigger, UnknownVendor


class Command(BaseCommand):
    help = "Lists, installs, removes or checks the triggers that capture changes."
    # The triggers must be reachable whatever the checks say, theirs included.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "action",
            choices=("list", "install", "uninstall", "check"),
            help="check exits 1 when any trigger is missing or stale",
        )
        add_database_option(parser)

    def handle(self, *, action: str, database: str | None, verbosity: int, **options: Any) -> None:
        using = alias_of(database)
        try:
            getattr(self, f"_{action}")(using, verbosity)
        except UnknownVendor as error:
            raise CommandError(str(error)) from error

    def _list(self, using: str, verbosity: int) -> None:
        self._print(install.status(using))

    def _install(self, using: str, verbosity: int) -> None:
        if not install.log_exists(using):
            raise CommandError("The tables of the log do not exist yet; run `migrate` first.")
        changes = install.restore(using)
        if verbosity > 1:
            self._print(changes)
        if verbosity:
            self._say(_summary(changes, "Nothing to do."))

    def _uninstall(self, using: str, verbosity: int) -> None:
        names = install.uninstall(using)
        if verbosity > 1:
            for name in names:
                self.stdout.write(name)
        if verbosity:
            self._say(f"{len(names)} triggers removed; changes are not captured any more.")

    def _check(self, using: str, verbosity: int) -> None:
        if not install.log_exists(using):
            raise CommandError("The tables of the log do not exist yet; run `migrate`.")
        found = install.status(using)
        faults = install.faults(using)
        for fault in faults if verbosity else ():
            self._say(fault)
        wrong = [trigger for trigger in found if trigger.state is not State.INSTALLED]
        if wrong:
            if verbosity:
                self._print(wrong)
            raise CommandError(
                f"{_summary(wrong, '')} Run `migrate` or `realtime_triggers install`."
            )
        if faults:
            raise CommandError("The triggers are as they should be, and not every table can work.")
        if verbosity:
            self._say(f"{len(found)} triggers as they should be.")

    def _print(self, triggers: Iterable[Trigger]) -> None:
        styles = {State.INSTALLED: self.style.SUCCESS, State.MISSING: self.style.ERROR}
        for trigger in triggers:
            style = styles.get(trigger.state, self.style.WARNING)
            self.stdout.write(f"{style(f'{trigger.state:<9}')}  {trigger.table}  {trigger.name}")

    def _say(self, line: str) -> None:
        self.stdout.write(line)


def _summary(triggers: list[Trigger], nothing: str) -> str:
    counts = {
        state: sum(trigger.state is state for trigger in triggers)
        for state in (State.MISSING, State.STALE, State.ORPHAN)
    }
    words = [f"{count} {state}" for state, count in counts.items() if count]
    return f"{', '.join(words)}." if words else nothing
