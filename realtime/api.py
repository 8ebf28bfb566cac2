"""What a project calls from its own Python code."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from realtime import conf, presence_store
from realtime.broadcasting import abroadcast, broadcast
from realtime.wal import sequencer

__all__ = ["abroadcast", "apresence", "broadcast", "head", "presence"]


def head() -> int:
    """The sequence number of the last event in the log; 0 for an empty log. One query.

    What was committed a moment ago may not be numbered yet.
    """
    return sequencer.read_head(connections[conf.current().DATABASE]).seq


def presence(topic: str, *, private: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Who is present in a topic (its name without `realtime:`): for each key its metas, in the
    order they came. One query.

    A private topic is another room than the public one of the same name. Who came a moment ago may
    not be stored yet.
    """
    return presence_store.online(conf.current().DATABASE, topic, private)


async def apresence(topic: str, *, private: bool = False) -> dict[str, list[dict[str, Any]]]:
    """`presence` for async callers."""
    return await sync_to_async(presence, thread_sensitive=True)(topic, private=private)
