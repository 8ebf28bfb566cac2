"""The judgement whether a size stayed level."""

from __future__ import annotations

from benchmarks.soak.level import LEAST, Bound, thirds

BOUND = Bound(share=0.1, amount=5.0)


def judged(values: list[float], warm: float = 0.0) -> list[bool]:
    measured = {"size": [(float(at), value) for at, value in enumerate(values)]}
    return [one.level for one in thirds(measured, warm, {"size": BOUND})]


def test_a_size_that_goes_up_and_down_is_level() -> None:
    assert judged([100.0, 140.0, 180.0, 100.0, 140.0, 180.0] * 3) == [True]


def test_a_size_that_grows_all_the_time_is_not() -> None:
    assert judged([100.0 + number for number in range(60)]) == [False]


def test_growth_within_the_share_and_the_amount_is_allowed() -> None:
    size = 10
    assert judged([100.0] * size + [110.0] * size + [115.0] * size) == [True]
    assert judged([100.0] * size + [110.0] * size + [115.1] * size) == [False]


def test_what_grows_in_the_warm_up_does_not_count() -> None:
    rising = [10.0 * number for number in range(20)]
    assert judged([*rising, *[200.0] * 30], warm=20.0) == [True]


def test_a_single_peak_is_no_growth() -> None:
    assert judged([100.0] * 29 + [900.0]) == [True]


def test_a_size_that_becomes_smaller_is_level() -> None:
    assert judged([100.0] * 10 + [50.0] * 20) == [True]


def test_a_short_run_says_nothing() -> None:
    assert judged([100.0, 900.0] * LEAST) == []


def test_what_has_no_bound_is_not_judged() -> None:
    measured = {"size": [(float(at), 100.0 * at) for at in range(30)]}
    assert thirds(measured, 0.0, {}) == []
