"""A running server, the policies most tests live under, and the ORM in its database."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.support.orm_process import OrmProcess
from tests.acceptance.support.server import Server, copy_database, running

ALL: dict[str, Any] = {"event": "*", "schema": "public", "table": "zoo_note"}
"""The binding of every change of notes."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """A running server, and a process with the ORM in its database."""

    server: Server
    orm: OrmProcess


def create_usual_policies(orm: OrmProcess) -> None:
    """The policies most tests live under: one's own notes, and the public ones, are seen."""
    orm.policy("own notes", {"owner": "$user.id"})
    orm.policy("public notes", {"is_public": True}, audience="anyone")
    orm.policy("specimens", True, permission="view_specimen", audience="anyone")


@contextlib.contextmanager
def make_world(
    template: Path, folder: Path, kind: str = "daphne", realtime: dict[str, Any] | None = None
) -> Iterator[World]:
    database = copy_database(template, folder / "db.sqlite3")
    orm = OrmProcess(database)
    try:
        create_usual_policies(orm)
        with running(database, kind, realtime) as server:
            yield World(server, orm)
    finally:
        orm.close()


def someone(world: World) -> int:
    """A new user's id."""
    return world.orm.user(f"somebody-{next(_numbers)}")
