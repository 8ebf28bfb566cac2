"""All attacks of `benchmarks.hostile` at once, for a few seconds, and a good client among them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.hostile import attacked

SECONDS = 20.0


@pytest.mark.parametrize("kind", ["fanout"])
async def test_a_good_client_among_attackers_loses_nothing(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    found = await attacked(world.server, SECONDS)
    assert found.problems == []
    assert found.written and found.lost == []
    assert all(found.attacks.values())
    before, after = found.megabytes
    assert after - before < 300
    assert "Traceback" not in world.server.log
