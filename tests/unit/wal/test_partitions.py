"""Which partitions are to be made, and which may go."""

from __future__ import annotations

import pytest

from realtime.wal.partitions import Contents, Layout, Partition, Spans

SPANS = Spans(least=100, share=8, ahead=2, margin=50)


def layout(*ends: int, last_id: int, stray_id: int | None = None) -> Layout:
    firsts = (None, *ends)
    found = tuple(
        Partition(f"p{end}", first, end) for first, end in zip(firsts, ends, strict=False)
    )
    return Layout(found, last_id, stray_id)


def test_nothing_is_missing_while_there_is_room_for_two_partitions() -> None:
    assert SPANS.missing(layout(100, 200, 300, last_id=99), kept=0) == []
    assert SPANS.missing(layout(100, 200, 300, last_id=100), kept=0) == [(300, 400)]


def test_what_is_missing_follows_without_a_gap() -> None:
    assert SPANS.missing(layout(100, last_id=10), kept=0) == [(100, 200), (200, 300)]
    assert SPANS.missing(layout(100, last_id=49), kept=0)[0] == (100, 200)


def test_no_partition_is_made_for_ids_that_are_drawn_soon() -> None:
    # A statement that has begun to write would not know the partition.
    assert SPANS.missing(layout(100, last_id=50), kept=0) == [(100, 200), (200, 300)]
    assert SPANS.missing(layout(100, last_id=51), kept=0)[0] == (200, 300)
    assert SPANS.missing(layout(100, last_id=730), kept=0) == [(800, 900), (900, 1_000)]


def test_no_partition_is_made_for_ids_that_the_default_partition_has() -> None:
    assert SPANS.missing(layout(100, last_id=120, stray_id=119), kept=0)[0] == (200, 300)
    assert SPANS.missing(layout(100, last_id=10, stray_id=5_000), kept=0)[0] == (5_100, 5_200)
    # Strays below the partitions are in nobody's way.
    assert SPANS.missing(layout(100, 200, last_id=110, stray_id=-3), kept=0)[0] == (200, 300)


def test_the_first_partition_ends_behind_what_is_written_meanwhile() -> None:
    assert SPANS.first_end(0) == 100
    assert SPANS.first_end(50) == 100
    assert SPANS.first_end(51) == 200


@pytest.mark.parametrize("kept", [0, 10_000, 5_000_000, 10**9, 10**12])
def test_no_log_has_more_than_some_dozens_of_partitions(kept: int) -> None:
    usual = Spans()
    assert kept / usual.size(kept) <= usual.share
    assert usual.size(kept) == usual.least or kept / usual.size(kept) > usual.share / 2


def test_a_log_that_grows_gets_larger_partitions() -> None:
    assert SPANS.missing(layout(100, last_id=0), kept=1_000) == [(100, 300), (300, 500)]


def test_a_sequence_that_begins_anew_makes_nothing_twice() -> None:
    found = layout(100, 200, 300, last_id=0)
    assert SPANS.missing(found, kept=0) == []


def test_a_partition_is_closed_when_the_last_id_of_it_was_drawn() -> None:
    found = layout(100, 200, last_id=99)
    assert found.closed == ()
    found = layout(100, 200, last_id=100)
    assert [p.end for p in found.closed] == [100]


@pytest.mark.parametrize(
    ("contents", "goes"),
    [
        (Contents(last_seq=5, waiting=False), True),
        (Contents(last_seq=6, waiting=False), False),
        (Contents(last_seq=5, waiting=True), False),
        (Contents(last_seq=None, waiting=False), True),
        (Contents(last_seq=None, waiting=True), False),
    ],
)
def test_a_partition_goes_when_each_entry_has_a_number_that_may_go(
    contents: Contents, goes: bool
) -> None:
    assert contents.beyond(5) is goes
