"""`manage.py prune_wal`: delete log entries beyond retention."""

from __future__ import annotations

import argparse
import math
import time
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import DatabaseError

from realtime.process import pruning
from realtime.process.pruning import AnotherPrunes, Pace, Pruned

_REDRAW_SECONDS = 0.2


class Command(BaseCommand):
    help = "Deletes numbered log entries beyond REALTIME['RETENTION'], and unused relations."
    # Between lines of progress where there is no terminal.
    line_seconds = 5.0
    pace = Pace()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--older-than",
            type=_hours,
            metavar="HOURS",
            help="delete what is older than this many hours (default: RETENTION)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be deleted, delete nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._verbosity = int(options["verbosity"])
        self._began = self._shown = time.monotonic()
        self._drawn = False
        older_than: timedelta | None = options["older_than"]
        try:
            pruned = pruning.prune(
                older_than,
                dry_run=options["dry_run"],
                progress=self._show_progress,
                pace=self.pace,
            )
        except KeyboardInterrupt:
            self._end_line()
            raise CommandError("Interrupted; what was deleted stays so.", returncode=130) from None
        except AnotherPrunes as error:
            self._end_line()
            raise CommandError(f"{_sentence(error)} Nothing is lost by waiting for it.") from None
        except DatabaseError as error:
            self._end_line()
            text = " ".join(str(error).split())
            raise CommandError(
                f"The log cannot be pruned: {text}. Has `manage.py migrate` been run?"
            ) from None
        self._end_line()
        if self._verbosity:
            self._say_outcome(pruned, bool(options["dry_run"]))

    def _say_outcome(self, pruned: Pruned, dry_run: bool) -> None:
        did = "Would delete" if dry_run else "Deleted"
        entries = "entry" if pruned.entries == 1 else "entries"
        relations = "relation" if pruned.relations == 1 else "relations"
        broadcasts = "broadcast" if pruned.messages == 1 else "broadcasts"
        self.stdout.write(
            f"{did} {pruned.entries:,} {entries}, {pruned.messages:,} stored {broadcasts} and "
            f"{pruned.relations:,} unused {relations}."
        )
        if pruned.copied or pruned.history:
            self.stdout.write(
                f"Histories: {pruned.copied:,} copied from the log, {pruned.history:,} "
                f"{'would be' if dry_run else 'were'} deleted because they are older than their "
                "models' days."
            )
        if pruned.held_at is not None:
            self.stdout.write(
                f"From seq {pruned.held_at} on a running process still reads; run again later."
            )

    def _show_progress(self, pruned: Pruned) -> None:
        if not self._verbosity:
            return
        now = time.monotonic()
        tty = self.stdout.isatty()
        if now - self._shown < (_REDRAW_SECONDS if tty else self.line_seconds):
            return
        self._shown = now
        rate = pruned.entries / max(now - self._began, 1e-6)
        text = f"{pruned.entries:,} of {pruned.total:,} entries deleted, {rate:,.0f}/s"
        if tty:
            self.stdout.write(f"\r\x1b[K{text}", ending="")
            self.stdout.flush()
            self._drawn = True
        else:
            self.stdout.write(text)
            self.stdout.flush()

    def _end_line(self) -> None:
        if self._drawn:
            self.stdout.write("\r\x1b[K", ending="")
            self._drawn = False


def _hours(text: str) -> timedelta:
    try:
        hours = float(text)
        if math.isfinite(hours) and hours >= 0:
            return timedelta(hours=hours)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours, such as 24 or 0.5")


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
