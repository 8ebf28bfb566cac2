"""`--database`, as every command has it that works in the log's database."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import CommandError
from django.db import connections

from realtime.conf import settings


def add_database_option(parser: ArgumentParser) -> None:
    parser.add_argument("--database", help="alias of the database (default: REALTIME['DATABASE'])")


def alias_of(database: str | None) -> str:
    """The alias that was asked for, or that of the settings. Raises CommandError if there is no
    such database."""
    alias = database or settings.DATABASE
    if alias not in connections:
        raise CommandError(f"DATABASES has no alias {alias!r}.")
    return alias
