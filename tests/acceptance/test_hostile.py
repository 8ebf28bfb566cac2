"""All attacks of `benchmarks.hostile` at once, for a few seconds, and a good client among them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.hostile import SERVERS, attacked

SECONDS = 8.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
async def test_a_good_client_among_attackers_loses_nothing(fresh: Any, kind: str) -> None:
    world = fresh(kind)
    found = await attacked(world.server, SECONDS)
    # How fast it was answered is for a machine that does nothing else to say.
    broken = [
        promise
        for promise in found.promises()
        if not promise.kept and not promise.what.startswith("heartbeats")
    ]
    assert broken == []
    assert found.beats and found.joins
