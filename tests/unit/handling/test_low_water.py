"""The low-water mark: below it everything is done, and nothing that is done is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime.handling.low_water import LowWater


@given(st.sets(st.integers(1, 60), min_size=1), st.randoms(use_true_random=False))
def test_everything_up_to_the_mark_is_done_and_the_next_one_is_not(
    seqs: set[int], rng: object
) -> None:
    water = LowWater(0)
    for seq in sorted(seqs):
        water.begin(seq)
    water.passed(70)
    left = set(seqs)
    order = sorted(seqs)
    rng.shuffle(order)  # type: ignore[attr-defined]
    for seq in order:
        assert water.mark == min(left) - 1
        water.done(seq)
        left.discard(seq)
    assert water.mark == 70
    assert water.open == 0


@given(st.lists(st.booleans(), max_size=60))
def test_the_mark_only_rises_while_changes_come_and_go(steps: list[bool]) -> None:
    water = LowWater(0)
    waiting: list[int] = []
    seq = 0
    last = water.mark
    for comes in steps:
        if comes or not waiting:
            seq += 1
            water.begin(seq)
            waiting.append(seq)
        else:
            water.done(waiting.pop())
        assert water.mark >= last
        last = water.mark
    assert water.open >= len(waiting)
