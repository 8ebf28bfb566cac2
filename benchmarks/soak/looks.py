"""Readers of a run that differ in what they may see and what they ask for."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.soak.ledger import Traits
from benchmarks.soak.readers import Look
from benchmarks.soak.writers import SCORES
from tests.acceptance.support.server import ANON_KEY, SERVICE_KEY
from tests.support.tokens import token


def looks(owners: list[int], hours: float) -> Iterator[Look]:
    """Readers of every kind that differ in what they may see and what they ask for."""

    def public(traits: Traits) -> bool:
        return traits.public

    yield Look("anyone", ANON_KEY, public)
    for owner in owners[:8]:

        def mine(traits: Traits, owner: int = owner) -> bool:
            return traits.owner == owner or traits.public

        mine_token = token(owner, ttl=hours * 3600)
        yield Look(f"user {owner}", ANON_KEY, mine, mine_token)
        yield Look(
            f"user {owner}, low scores",
            ANON_KEY,
            lambda traits, mine=mine: mine(traits) and traits.score < SCORES // 2,  # type: ignore[misc]
            mine_token,
            f"score=lt.{SCORES // 2}",
        )
    for score in range(0, SCORES, 3):
        yield Look(
            f"score {score}",
            SERVICE_KEY,
            lambda traits, score=score: traits.score == score,  # type: ignore[misc]
            filter=f"score=eq.{score}",
        )
