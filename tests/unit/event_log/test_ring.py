"""The ring: contiguous, bounded, and honest about how far back it reaches."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.kinds import Kind
from realtime.event_log.event import DatabaseEvent, RowImage
from realtime.event_log.ring import EventLog
from realtime.wal.entry import ColumnInfo, Relation
from realtime.wal.head import Head

RELATION = Relation("r", "public", "t", (ColumnInfo("id", "int8", Kind.INT),), ("id",))


def event(seq: int) -> DatabaseEvent:
    return DatabaseEvent(seq, seq * 10, RELATION, "DELETE", None, None)


def log(size: int, head: int, count: int) -> EventLog:
    made = EventLog(size)
    made.start(Head("e", head, head * 10))
    for seq in range(head + 1, head + count + 1):
        made.append(event(seq))
    return made


def test_only_the_very_next_event_is_taken() -> None:
    ring = log(5, 10, 2)
    for seq in (11, 12, 14):
        with pytest.raises(ValueError, match=f"event {seq} cannot follow 12"):
            ring.append(event(seq))
    ring.append(event(13))
    assert (ring.seq, ring.commit_us) == (13, 130)


@given(
    size=st.integers(1, 20),
    head=st.integers(0, 50),
    count=st.integers(0, 40),
    back=st.integers(-3, 60),
)
def test_reading_gives_everything_after_a_position_or_says_that_it_cannot(
    size: int, head: int, count: int, back: int
) -> None:
    ring = log(size, head, count)
    after = ring.seq - back
    found = ring.since(after)
    wanted = [event(seq) for seq in range(after + 1, ring.seq + 1)]
    if after >= ring.seq:
        assert found == ()
    elif len(wanted) <= min(size, count):
        assert list(found or ()) == wanted
    else:
        assert found is None
    assert len(ring) == min(size, count)


def test_a_new_start_forgets_the_old_events() -> None:
    ring = log(5, 0, 5)
    ring.start(Head("f", 3, 30))
    assert (ring.epoch, ring.seq, len(ring)) == ("f", 3, 0)
    assert ring.since(2) is None


TABLES = [Relation(name, "public", name, RELATION.columns, ("id",)) for name in "ab"]


@given(
    size=st.integers(1, 12),
    steps=st.lists(st.integers(0, 5), max_size=8),
    after=st.integers(-2, 30),
)
def test_the_events_of_some_tables_are_those_of_the_ring_however_often_it_is_asked(
    size: int, steps: list[int], after: int
) -> None:
    ring = EventLog(size)
    ring.start(Head("e", 3, 30))
    wanted = frozenset("a")
    for step in steps:
        for _ in range(step):
            seq = ring.seq + 1
            ring.append(DatabaseEvent(seq, seq * 10, TABLES[seq % 2], "DELETE", None, None))
        everything = ring.since(after)
        found = ring.on_tables(wanted, after)
        if everything is None:
            assert found is None
        else:
            assert found is not None
            assert list(found) == [e for e in everything if e.relation.table in wanted]


class Image(RowImage):
    """An image whose end can be noticed."""

    __slots__ = ("__weakref__",)


def test_an_event_that_has_left_the_ring_is_kept_for_no_set_of_tables() -> None:
    ring = EventLog(2)
    ring.start(Head("e", 0))
    image = Image(b"{}", {})
    kept = weakref.ref(image)
    ring.append(DatabaseEvent(1, 10, RELATION, "DELETE", image, None))
    del image
    assert ring.on_tables(frozenset({"t"}), 0)
    for seq in range(2, 5):
        ring.append(event(seq))
    # Another set is read, and the first one never again.
    assert ring.on_tables(frozenset({"another"}), 4) == []
    gc.collect()
    assert kept() is None


def test_a_time_is_placed_where_the_ring_shows_it_and_nowhere_else() -> None:
    ring = log(3, 10, 5)  # 13, 14 and 15 are kept
    assert [ring.seq_at(us) for us in (129, 130, 139, 140, 150, 151)] == [
        None,
        13,
        13,
        14,
        15,
        None,
    ]
    assert log(3, 10, 0).seq_at(100) is None


def test_so_many_events_are_read_and_no_more() -> None:
    for size in (8, 10):
        ring = log(size, 0, 8)
        for after in range(8):
            for most in range(1, 10):
                found = [event.seq for event in ring.since(after, most) or ()]
                assert found == list(range(after + 1, min(after + most, 8) + 1))


async def test_who_waits_for_an_event_is_woken_by_it_or_by_another_epoch() -> None:
    ring = log(5, 10, 0)
    waiting = asyncio.create_task(ring.beyond(11, 60))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        ring.append(event(ring.seq + 1))
    assert await waiting
    waiting = asyncio.create_task(ring.beyond(100, 60))
    await asyncio.sleep(0)
    ring.start(Head("f", 1, 10))
    assert await waiting
    assert not await ring.beyond(100, 0)
