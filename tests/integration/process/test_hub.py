"""The hub: what it counts."""

from __future__ import annotations

import pytest

from realtime.process.hub import MANY_CONNECTIONS, close_hub, hub
from realtime.util import full_collections


async def test_from_many_connections_on_full_collections_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(full_collections, "limit", lambda: asked.append(1))
    here = hub()
    try:
        for _ in range(MANY_CONNECTIONS - 1):
            assert here.enter("192.0.2.1", None, None) is None
        assert here.enter("192.0.2.1", None, 1) is not None
        assert not asked
        assert here.enter("192.0.2.1", None, None) is None
        assert asked
    finally:
        await close_hub()
