"""Connections of Django's own pool are held for no longer than the work takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from realtime.util import database_threads
from realtime.util.database_threads import in_database_thread


class Wrapper:
    """What matters of a connection."""

    def __init__(self, **options: Any) -> None:
        self.settings_dict = {"OPTIONS": options}
        self.close_at: float | None = 1.0
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


async def test_a_connection_of_a_pool_goes_back_when_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pooled, sized, plain = Wrapper(pool=True), Wrapper(pool={"max_size": 4}), Wrapper()
    known = SimpleNamespace(all=lambda initialized_only: [pooled, sized, plain])
    monkeypatch.setattr(database_threads, "connections", known)
    assert await in_database_thread(lambda: 7) == 7
    assert (pooled.closed, sized.closed, plain.closed) == (1, 1, 0)
    assert plain.close_at is None
