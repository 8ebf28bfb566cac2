"""`realtime_functions install|uninstall|check`: SQL functions that broadcast, as Supabase's do."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from realtime.management.database_option import add_database_option, alias_of
from realtime.models import Message
from realtime.topics.broadcast import LONGEST_EVENT, LONGEST_TOPIC
from realtime.wal.catalog import State
from realtime.wal.sql_functions import NoSqlFunctions, NotOurs, SqlFunctions
from realtime.wal.vendor import UnknownVendor, vendor_of


class Command(BaseCommand):
    help = (
        "Installs, removes or checks realtime.send, send_binary, broadcast_changes and topic, by "
        "which SQL written for Supabase broadcasts. PostgreSQL only."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "action",
            choices=("install", "uninstall", "check"),
            help="check exits 1 when any function is missing or altered",
        )
        add_database_option(parser)

    def handle(self, *, action: str, database: str | None, verbosity: int, **options: Any) -> None:
        using = alias_of(database)
        connection = connections[using]
        try:
            found = vendor_of(connection).sql_functions(
                connection,
                Message._meta.db_table,
                longest_topic=LONGEST_TOPIC,
                longest_event=LONGEST_EVENT,
            )
            getattr(self, f"_{action}")(found, verbosity)
        except (UnknownVendor, NoSqlFunctions, NotOurs, LookupError) as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"Nothing was changed: {str(error).strip()}") from None

    def _install(self, functions: SqlFunctions, verbosity: int) -> None:
        changed = functions.install()
        if verbosity > 1:
            for function in changed:
                self.stdout.write(f"{function.state:<9}  {function.signature}")
        if verbosity:
            done = f"{len(changed)} functions installed." if changed else "Nothing to do."
            self.stdout.write(done)

    def _uninstall(self, functions: SqlFunctions, verbosity: int) -> None:
        dropped = functions.uninstall()
        if verbosity > 1:
            for signature in dropped:
                self.stdout.write(signature)
        if verbosity:
            self.stdout.write(f"{len(dropped)} functions removed.")
        if callers := functions.callers():
            self.stderr.write(
                f"Still called by {', '.join(callers)}: statements that reach these fail from now"
                " on. Drop their triggers, or install the functions again."
            )

    def _check(self, functions: SqlFunctions, verbosity: int) -> None:
        found = functions.compare()
        wrong = [function for function in found if function.state is not State.INSTALLED]
        for function in wrong if verbosity else ():
            self.stdout.write(f"{function.state:<9}  {function.signature}")
        if wrong:
            raise CommandError(
                f"{len(wrong)} functions are missing or altered. Run `realtime_functions install`."
            )
        if verbosity:
            self.stdout.write(f"{len(found)} functions as they should be.")
