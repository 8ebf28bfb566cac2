"""`manage.py realtime_repair`: report what is wrong with a log, and repair it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.db.utils import DatabaseError

from realtime import conf
from realtime.event_log import repair
from realtime.wal import triggers
from realtime.wal.head import begin_epoch
from realtime.wal.vendor import UnknownVendor

# More steps than there are kinds of problems.
_ROUNDS = 20


class Command(BaseCommand):
    help = (
        "Says what is wrong with the log (after a restore, a copy, deleted rows) and mends it. "
        "Rows of your own tables are never touched."
    )
    # It is needed most where checks fail.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="say what is wrong and change nothing; exits 1 if anything is",
        )
        parser.add_argument(
            "--new-epoch",
            action="store_true",
            help="begin a new epoch in any case, so that every client reads its rows again: for a "
            "restore that leaves no trace, such as that of a whole disk",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        alias = conf.current().DATABASE
        self._verbosity = int(options["verbosity"])
        try:
            if not triggers.log_exists(alias):
                raise CommandError("The tables of the log do not exist yet; run `migrate` first.")
            found = self._report(alias) if options["check"] else self._mend(alias)
            if options["new_epoch"] and not options["check"]:
                head = begin_epoch(connections[alias])
                self._say(f"A new epoch begins after seq {head.seq:,}.")
        except UnknownVendor as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            text = " ".join(str(error).split())
            raise CommandError(f"The log cannot be mended: {text}") from None
        if options["check"] and found:
            raise CommandError("The log is not as it should be. Run `realtime_repair` to mend it.")
        if not found:
            self._say("The log is as it should be.")

    def _report(self, alias: str) -> int:
        found = repair.problems(alias)
        for problem in found:
            self._say(problem.text)
        return len(found)

    def _mend(self, alias: str) -> int:
        # One at a time: one repair may solve several problems.
        for count in range(_ROUNDS):
            found = repair.problems(alias)
            if not found:
                return count
            self._say(f"{found[0].text} {found[0].cure}")
            found[0].mend()
        raise CommandError(f"Still wrong after {_ROUNDS} steps: {repair.problems(alias)[0].text}")

    def _say(self, text: str) -> None:
        if self._verbosity:
            self.stdout.write(text)
