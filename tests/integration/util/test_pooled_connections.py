"""Connections of Django's own pool are held for no longer than the work takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, connections

from realtime.event_log.tailer import Tailer
from realtime.util import database_threads
from realtime.util.database_threads import in_database_thread, unpooled
from tests.support.vendors import on_postgresql
from tests.support.waiting import until


class Wrapper:
    """What matters of a connection."""

    def __init__(self, **options: Any) -> None:
        self.settings_dict = {"OPTIONS": options}
        self.close_at: float | None = 1.0
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.django_db
async def test_a_connection_of_a_pool_goes_back_when_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pooled, sized, plain = Wrapper(pool=True), Wrapper(pool={"max_size": 4}), Wrapper()
    known = SimpleNamespace(all=lambda initialized_only: [pooled, sized, plain])
    monkeypatch.setattr(database_threads, "connections", known)
    assert await in_database_thread(lambda: 7) == 7
    assert (pooled.closed, sized.closed, plain.closed) == (1, 1, 0)
    assert plain.close_at is None


@pytest.fixture
def pool(transactional_db: None) -> Iterator[Any]:
    """Django's own pool of two connections, for connections that this thread makes."""
    before = connection.settings_dict["OPTIONS"].get("pool")
    connection.close()
    connection.settings_dict["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 2, "timeout": 30}
    yield connection.pool  # type: ignore[attr-defined]
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    if before is None:
        del connection.settings_dict["OPTIONS"]["pool"]
    else:
        connection.settings_dict["OPTIONS"]["pool"] = before


@on_postgresql
def test_what_is_held_for_long_is_none_of_the_pool(pool: Any) -> None:
    before = connections["default"]
    with unpooled("default"):
        own = connections["default"]
        assert own is not before
        own.ensure_connection()
        assert pool.get_stats().get("requests_num", 0) == 0
    assert own.connection is None
    assert connections["default"] is before


@on_postgresql
def test_a_tailer_leaves_the_pool_to_the_pages(pool: Any) -> None:
    tailer = Tailer("default", 0.02, lambda batch: None)
    thread = threading.Thread(target=tailer.run)
    thread.start()
    try:
        until(lambda: tailer.leading)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        # This one, and no other.
        assert pool.get_stats()["requests_num"] == 1
    finally:
        tailer.stop()
        thread.join(30)
    assert not thread.is_alive()
