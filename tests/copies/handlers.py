"""Handlers that copy titles of notes into teams, each in its own way."""

from __future__ import annotations

from typing import Any

from realtime import on_change
from tests.zoo.models import Note, Team


@on_change(Note, events=["INSERT"], name="in_order", start="beginning")
def in_order(change: Any) -> None:
    Team.objects.create(name=f"in_order {change.new['title']}")


@on_change(Note, events=["INSERT"], name="in_batches", batch=7, start="beginning")
def in_batches(changes: list[Any]) -> None:
    Team.objects.bulk_create([Team(name=f"in_batches {c.new['title']}") for c in changes])


@on_change(Note, events=["INSERT"], name="by_key", key="score", concurrency=3, start="beginning")
async def by_key(change: Any) -> None:
    await Team.objects.acreate(name=f"by_key {change.new['title']}")
