"""`manage.py export_rls`: the policies in force as PostgreSQL's own row-level security."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from auth_rls.access.snapshot import stored_definitions
from auth_rls.export import catalog
from auth_rls.export.desired import Export, by_name, wanted
from auth_rls.export.render import Inexpressible
from auth_rls.models import Policy
from auth_rls.policy.declared import declared_policies
from auth_rls.sql.dialects.registry import dialect_of
from auth_rls.sql.primary import primary


class Command(BaseCommand):
    help = (
        "Prints the policies in force as CREATE POLICY statements, so that PostgreSQL applies "
        "them to programs that use SQL directly. --apply installs them, --check compares."
    )
    # Policies that cannot be used are exported too, as denials.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        either = parser.add_mutually_exclusive_group()
        either.add_argument("--apply", action="store_true", help="install them, in one transaction")
        either.add_argument(
            "--check",
            action="store_true",
            help="exit 1 with a line for each difference",
        )
        parser.add_argument("--database", default="default", help="alias of the database")

    def handle(self, *, database: str, verbosity: int, **options: Any) -> None:
        if database not in connections:
            raise CommandError(f"DATABASES has no alias {database!r}.")
        try:
            if not (options["apply"] or options["check"]):
                self._print(self._wanted(database))
                return
            if not dialect_of(connections[database]).exports_policies:
                raise CommandError(
                    f"Row security is PostgreSQL's; the database {database!r} is "
                    f"{connections[database].display_name}. Without options the statements "
                    "are printed."
                )
            export = self._wanted(database)
            for note in export.notes:
                self.stderr.write(note)
            if options["apply"]:
                self._apply(export, database, verbosity)
            else:
                self._check(export, database, verbosity)
        except (Inexpressible, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"Nothing was changed: {_first_line(error)}") from None

    def _wanted(self, using: str) -> Export:
        source = connections[primary(Policy)]
        if Policy._meta.db_table not in source.introspection.table_names():
            raise CommandError("The table of policies does not exist yet; run `migrate` first.")
        definitions = [*stored_definitions(), *declared_policies()]
        if not dialect_of(connections[using]).exports_policies:
            return wanted(definitions, using, by_name)
        return wanted(definitions, using, lambda table: catalog.located(table, using))

    def _print(self, export: Export) -> None:
        for note in export.notes:
            self.stderr.write(note)
            self.stdout.write("-- " + " ".join(note.split()))
        self.stdout.write(catalog.script(export))

    def _apply(self, export: Export, using: str, verbosity: int) -> None:
        differences = catalog.reconcile(export, using)
        if verbosity > 1:
            for line in differences:
                self.stdout.write(line)
        now = catalog.Catalog(using)
        for line in [*now.others(export), *now.grants(export)]:
            self.stderr.write(line)
        if verbosity:
            done = f"{_counted(differences)} mended" if differences else "nothing to do"
            self.stdout.write(
                f"{len(export.policies)} policies on {len(export.tables)} tables: {done}."
            )

    def _check(self, export: Export, using: str, verbosity: int) -> None:
        found = catalog.Catalog(using)
        differences, others = found.differences(export), found.others(export)
        grants = found.grants(export)
        for line in [*differences, *others, *grants]:
            self.stdout.write(line)
        if differences:
            raise CommandError(f"{_counted(differences)}. Run `export_rls --apply`.")
        if others:
            raise CommandError("Policies that are not ours let rows through; drop them.")
        if grants:
            raise CommandError("Grants lead around the policies; revoke them.")
        if verbosity:
            self.stdout.write(f"{len(export.policies)} policies as they should be.")


def _counted(lines: list[str]) -> str:
    return f"{len(lines)} difference{'' if len(lines) == 1 else 's'}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
