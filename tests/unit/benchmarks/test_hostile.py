"""The judgement on a hostile run: the memory of the server is bounded, and level."""

from __future__ import annotations

from benchmarks.hostile import LEVEL_MEGABYTES, LEVEL_SECONDS, MOST_MEGABYTES, Found


def broken(found: Found) -> set[str]:
    names = {"the server grows": "grows", "its memory is level": "level"}
    return {
        name
        for promise in found.promises()
        for begins, name in names.items()
        if promise.what.startswith(begins) and not promise.kept
    }


def test_memory_that_rises_early_and_stays_is_as_promised() -> None:
    sizes = [80.0, 200.0, 240.0, 230.0, 245.0, 240.0]
    assert broken(Found(seconds=LEVEL_SECONDS, megabytes=sizes)) == set()


def test_memory_that_goes_on_rising_is_not() -> None:
    sizes = [80.0 + number * LEVEL_MEGABYTES / 2 for number in range(6)]
    assert broken(Found(seconds=LEVEL_SECONDS, megabytes=sizes)) == {"level"}


def test_the_peak_counts_and_not_what_is_left_at_the_end() -> None:
    sizes = [80.0, 90.0 + MOST_MEGABYTES, 100.0, 100.0]
    assert broken(Found(seconds=LEVEL_SECONDS, megabytes=sizes)) == {"grows"}


def test_a_run_of_seconds_says_nothing_about_levelness() -> None:
    sizes = [80.0, 100.0, 100.0 + 2 * LEVEL_MEGABYTES]
    found = Found(seconds=8.0, megabytes=sizes)
    assert broken(found) == set()
    assert not any(promise.what.startswith("its memory") for promise in found.promises())
