"""A running server, the policies most tests live under, and the ORM in its database."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.support.orm_process import Hand
from tests.acceptance.support.server import Server, copy_database, running

ALL: dict[str, Any] = {"event": "*", "schema": "public", "table": "zoo_note"}
"""The binding of every change of notes."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """A running server and the hand in its database."""

    server: Server
    hand: Hand


def stand(hand: Hand) -> None:
    """The policies most tests live under: one's own notes, and the public ones, are seen."""
    hand.policy("own notes", {"owner": "$user.id"})
    hand.policy("public notes", {"is_public": True}, audience="anyone")
    hand.policy("specimens", True, permission="view_specimen", audience="anyone")


@contextlib.contextmanager
def make_world(
    template: Path, folder: Path, kind: str = "daphne", realtime: dict[str, Any] | None = None
) -> Iterator[World]:
    database = copy_database(template, folder / "db.sqlite3")
    hand = Hand(database)
    try:
        stand(hand)
        with running(database, kind, realtime) as server:
            yield World(server, hand)
    finally:
        hand.close()


def someone(world: World) -> int:
    """A new user's id."""
    return world.hand.user(f"somebody-{next(_numbers)}")
