"""Full collections: most look at new objects alone, and no garbage stays for ever."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.util import full_collections
from realtime.util.full_collections import CollectionBounds, FullCollections, is_host_set

ROOT = Path(__file__).parents[3]


LONG = 0.2


class Frozen:
    """What was asked of the collector."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.now = 0.0
        for name in ("freeze", "unfreeze"):
            monkeypatch.setattr(
                full_collections.gc, name, lambda name=name: self.asked.append(name)
            )

    def limited(self, **bounds: float) -> FullCollections:
        """Limited collections, of which one that took long has come."""
        limited = FullCollections(CollectionBounds(**bounds), clock=lambda: self.now)
        assert self.collect(limited, took=LONG) == "everything"
        assert limited.limiting
        return limited

    def collect(self, limited: FullCollections, *, took: float = 0.0, collected: int = 0) -> str:
        """What the collection looks at: everything or new objects."""
        self.asked.clear()
        limited("start", {"generation": 2, "collected": 0})
        everything = not limited.limiting
        self.now += took
        limited("stop", {"generation": 2, "collected": collected})
        return "everything" if everything else "new"


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Frozen]:
    yield Frozen(monkeypatch)


def test_full_collections_that_take_no_long_time_are_left_to_python(frozen: Frozen) -> None:
    limited = FullCollections(CollectionBounds(long=0.05), clock=lambda: frozen.now)
    for _ in range(3):
        assert frozen.collect(limited, took=0.04) == "everything"
        assert not frozen.asked


def test_after_one_that_took_long_each_looks_at_what_came_since_the_last_one(
    frozen: Frozen,
) -> None:
    limited = frozen.limited()
    assert frozen.asked == ["freeze"]
    for _ in range(3):
        assert frozen.collect(limited) == "new"
        assert frozen.asked == ["freeze"]
    limited("start", {"generation": 1, "collected": 0})
    limited("stop", {"generation": 1, "collected": 0})
    assert frozen.asked == ["freeze"]


def test_after_its_time_everything_is_looked_at(frozen: Frozen) -> None:
    limited = frozen.limited(seconds=100)
    frozen.now = LONG + 99.0
    assert frozen.collect(limited) == "new"
    frozen.now = LONG + 100.0
    assert frozen.collect(limited, took=LONG) == "everything"
    assert frozen.asked == ["unfreeze", "freeze"]
    frozen.now += 99.0
    assert frozen.collect(limited) == "new"
    frozen.now += 1.0
    assert frozen.collect(limited) == "everything"


def test_many_new_objects_are_followed_by_a_look_at_everything(frozen: Frozen) -> None:
    limited = frozen.limited(seconds=1e9, looking=0.3, quiet=0.0)
    assert [frozen.collect(limited, took=0.25) for _ in range(2)] == ["new", "new"]
    assert frozen.collect(limited, took=1.0) == "everything"
    # The more there is to look at, the more may come before that is done again.
    assert [frozen.collect(limited, took=0.4) for _ in range(3)] == ["new"] * 3
    assert frozen.collect(limited) == "everything"


def test_ten_thousand_sockets_that_come_at_once_bring_no_look_at_everything(
    frozen: Frozen,
) -> None:
    # Each brings about 130 objects, and each look at new ones is at some 75,000.
    limited = frozen.limited()
    assert [frozen.collect(limited, took=0.04) for _ in range(18)] == ["new"] * 18


def test_the_look_at_everything_waits_for_the_end_of_a_herd(frozen: Frozen) -> None:
    limited = frozen.limited(seconds=1e9, looking=0.3, quiet=2.0)
    for _ in range(4):
        frozen.now += 1.9
        assert frozen.collect(limited, took=0.1) == "new"
    frozen.now += 2.0
    assert frozen.collect(limited) == "everything"


def test_a_herd_without_end_is_followed_by_a_look_at_everything_all_the_same(
    frozen: Frozen,
) -> None:
    limited = frozen.limited(seconds=1e9, looking=0.3, quiet=2.0, herd=3.0)
    assert [frozen.collect(limited, took=0.3) for _ in range(3)] == ["new"] * 3
    assert frozen.collect(limited) == "everything"


def test_where_everything_takes_no_long_time_any_more_nothing_is_limited(frozen: Frozen) -> None:
    limited = frozen.limited(seconds=10)
    frozen.now = 20.0
    assert frozen.collect(limited, took=0.01) == "everything"
    assert frozen.asked == ["unfreeze"]
    assert frozen.collect(limited, took=0.01) == "everything"


def test_the_more_garbage_everything_had_the_sooner_it_is_looked_at_again(frozen: Frozen) -> None:
    limited = frozen.limited(seconds=80, looking=0.3, garbage=100, quiet=0.0)
    frozen.now += 80.0
    assert frozen.collect(limited, took=LONG, collected=101) == "everything"
    frozen.now += 40.0
    assert frozen.collect(limited, took=LONG, collected=101) == "everything"
    assert frozen.collect(limited, took=0.1) == "new"
    assert frozen.collect(limited, took=LONG, collected=100) == "everything"
    # That was soon enough.
    assert [frozen.collect(limited, took=0.1) for _ in range(3)] == ["new"] * 3


def test_a_process_whose_cycles_live_long_goes_back_to_what_python_does_for_a_time(
    frozen: Frozen,
) -> None:
    limited = frozen.limited(seconds=80, garbage=100)
    for _ in range(4):
        frozen.now += 80.0
        assert frozen.collect(limited, took=LONG, collected=101) == "everything"
    assert frozen.asked == ["unfreeze"]
    frozen.now += 79.0
    assert frozen.collect(limited, took=LONG) == "everything"
    assert not frozen.asked
    frozen.now += 1.0
    assert frozen.collect(limited, took=LONG) == "everything"
    assert frozen.collect(limited) == "new"


def test_a_host_that_sets_the_collector_is_left_alone() -> None:
    before = gc.get_threshold()
    assert gc.isenabled()
    try:
        gc.set_threshold(50_000, 20, 100)
        assert is_host_set()
    finally:
        gc.set_threshold(*before)
    gc.disable()
    try:
        assert is_host_set()
    finally:
        gc.enable()


@pytest.mark.skipif(not full_collections.is_generational(), reason="collections are incremental")
def test_a_cycle_that_is_dropped_late_is_freed_by_the_next_look_at_everything() -> None:
    program = """
        import gc, weakref
        from realtime.util.full_collections import CollectionBounds, FullCollections, is_host_set

        class Node: ...

        def cycle():
            node = Node()
            node.itself = node
            return node

        now = 0.0
        assert not is_host_set()
        limited = FullCollections(CollectionBounds(long=0.0, seconds=60), lambda: now)
        limited.begin()
        late = cycle()
        gc.collect()
        assert is_host_set()
        late, gone = None, weakref.ref(late)
        early = weakref.ref(cycle())
        gc.collect()
        assert early() is None and gone() is not None
        now = 60.0
        gc.collect()
        assert gone() is None
        limited.end()
        assert not is_host_set()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
