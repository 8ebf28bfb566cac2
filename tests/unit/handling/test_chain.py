"""Chains of handlers: how long they are, by the actors of changes alone."""

from __future__ import annotations

import pytest

from realtime.handling.chain import actor_of, link_of, next_link


@pytest.mark.parametrize(
    ("actor", "link"),
    [
        (None, 0),
        ("5", 0),
        ("handler", 0),
        ("handler:a", 1),
        ("handler:a#2", 2),
        ("handler:a#17", 17),
        ("handler:a#b", 1),
        ("handler:a#99999999999999999999", 1),
    ],
)
def test_the_link_of_an_actor(actor: str | None, link: int) -> None:
    assert link_of(actor) == link


def test_writes_are_one_link_further_than_the_longest_chain_they_handle() -> None:
    assert next_link([None, "7"]) == 1
    assert next_link([None, actor_of("other", 3), actor_of("a", 1)]) == 4
    assert actor_of("a", next_link([None])) == "handler:a"
    assert link_of(actor_of("a", next_link(["handler:b"]))) == 2
