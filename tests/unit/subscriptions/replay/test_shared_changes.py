"""Changes for many replays: made once for those who get the same, and to each only what is its."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_rls.predicates.predicate import TRUE, All, Any_, Not, Predicate, Test
from realtime.event_log.event import DatabaseEvent
from realtime.subscriptions.frames import ChangeFrames
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.replay.shared_changes import SharedChanges
from realtime.util.counters import Counters
from tests.support.small_rows import RELATION, row


def key(
    rls: Predicate = TRUE,
    filter_: Predicate = TRUE,
    *,
    topic: str = "realtime:room",
    event: str = "*",
    select: tuple[str, ...] | None = None,
    live: bool = False,
) -> AudienceKey:
    item = Subscription(1, "public", "t", event, filter_, rls, select=select, live=live)
    return AudienceKey(topic, "2.0.0", (item,))


def insert(seq: int, owner: int, title: str = "a") -> DatabaseEvent:
    return DatabaseEvent(seq, seq, RELATION, "INSERT", None, row(id=seq, owner=owner, title=title))


def owned_by(owner: int) -> Predicate:
    return Test("owner", "exact", owner)


def begun(most_bytes: int = 1_000_000) -> tuple[SharedChanges, Counters]:
    counters = Counters()
    changes = SharedChanges(counters, most_bytes)
    changes.begin("epoch")
    return changes, counters


def texts(changes: SharedChanges, key: AudienceKey, event: DatabaseEvent) -> list[str]:
    return [str(frame.message) for frame in changes.audience(key).found(event).frames]


def alone(key: AudienceKey, event: DatabaseEvent) -> list[str]:
    """The frames of an audience that shares nothing."""
    index: SubscriptionIndex[str] = SubscriptionIndex(lambda _, error: None)
    index.set("alone", key)
    return [str(ChangeFrames(event).of(each).message) for each in index.match(event)]


def test_a_change_is_encoded_once_for_all_replays_of_channels_that_joined_alike() -> None:
    changes, counters = begun()
    event = insert(1, owner=7)
    frames = [changes.audience(key()).found(event).frames for _ in range(50)]
    assert counters.encoded == 1
    assert {frame is frames[0][0] for (frame,) in frames} == {True}


def test_subjects_whose_policies_show_the_same_of_a_change_share_its_frame() -> None:
    changes, counters = begun()
    event = insert(1, owner=7)
    for n in range(50):
        seen = Any_((owned_by(7), owned_by(100 + n)))
        assert texts(changes, key(seen), event) == alone(key(seen), event)
    assert counters.encoded == 1


def test_a_subject_gets_nothing_of_a_change_that_others_were_sent() -> None:
    changes, _ = begun()
    event = insert(1, owner=7)
    assert texts(changes, key(owned_by(7)), event)
    for _ in range(3):
        assert texts(changes, key(owned_by(8)), event) == []
        assert texts(changes, key(owned_by(7), Test("title", "exact", "b")), event) == []


def test_an_old_image_goes_to_those_alone_who_could_see_it() -> None:
    changes, _ = begun()
    old, new = row(id=1, owner=7, title="secret"), row(id=1, owner=8, title="shown")
    event = DatabaseEvent(1, 1, RELATION, "UPDATE", old, new)
    both, one = key(Any_((owned_by(7), owned_by(8)))), key(owned_by(8))
    for _ in range(3):
        assert "secret" in texts(changes, both, event)[0]
        assert "secret" not in texts(changes, one, event)[0]


def test_what_is_kept_is_bounded_and_forgotten_changes_are_made_again() -> None:
    changes, _ = begun(most_bytes=20_000)
    events = [insert(seq, owner=7, title="x" * 300) for seq in range(1, 200)]
    for _ in range(2):
        for event in events:
            assert texts(changes, key(), event) == alone(key(), event)
            assert changes.size <= 20_000


def test_a_change_that_is_larger_than_all_that_may_be_kept_is_delivered() -> None:
    changes, _ = begun(most_bytes=10)
    event = insert(1, owner=7)
    assert texts(changes, key(), event) == alone(key(), event)
    assert changes.size <= 10


def test_verdicts_are_counted_among_what_is_kept() -> None:
    changes, _ = begun(most_bytes=50_000)
    event = insert(1, owner=7)
    for n in range(2_000):
        for _ in range(2):
            assert not texts(changes, key(owned_by(100 + n)), event)
        assert changes.size <= 50_000


def one_of(count: int) -> Predicate:
    return Test("owner", "in", frozenset(range(count)))


@pytest.mark.parametrize(
    ("of", "kept"),
    [
        (key(), True),
        (key(one_of(50), Test("title", "exact", "a")), True),
        (key(one_of(1_000)), False),
        (key(filter_=one_of(1_000)), False),
        (key(filter_=Test("title", "like", "%a" * 1_000)), False),
        (key(filter_=All(tuple(Test("title", "exact", str(n)) for n in range(100)))), False),
        (AudienceKey("realtime:room", "2.0.0", key(owned_by(1)).subscriptions * 50), False),
    ],
    ids=["plain", "few values", "a set", "a list", "a pattern", "conditions", "bindings"],
)
def test_a_large_audience_goes_with_its_last_replay(of: AudienceKey, kept: bool) -> None:
    changes, _ = begun()
    running = changes.audience(of)
    assert changes.audience(of) is running
    ended = weakref.ref(running)
    del running
    gc.collect()
    assert (ended() is not None) is kept


def test_an_event_of_another_epoch_is_another_event() -> None:
    changes, _ = begun()
    first, second = insert(1, owner=7, title="first"), insert(1, owner=7, title="second")
    assert "first" in texts(changes, key(), first)[0]
    changes.begin("another")
    assert changes.size == 0
    assert "second" in texts(changes, key(), second)[0]


def test_a_filter_that_costs_too_much_ends_the_bindings_of_every_channel_that_has_it() -> None:
    changes, _ = begun()
    costly = Test("title", "match", "(a+)+$")
    event = insert(1, owner=7, title="a" * 400_000 + "b")
    found = [changes.audience(key(filter_=costly)).found(event) for _ in range(3)]
    assert [each.too_costly for each in found] == [{1}] * 3
    assert changes.audience(key()).found(event).too_costly == frozenset()


# --- any subjects, any changes ------------------------------------------------------------------

owners, titles = st.integers(1, 3), st.sampled_from(["a", "b"])
leaves = owners.map(owned_by) | titles.map(lambda title: Test("title", "exact", title))
predicates = st.recursive(
    st.just(TRUE) | leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: All(tuple(parts)))
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: Any_(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=3,
)
keys = st.builds(
    lambda rls, filter_, topic, event, select, live: key(
        rls, filter_, topic=topic, event="*" if live else event, select=select, live=live
    ),
    predicates,
    predicates,
    st.sampled_from(["realtime:room", "realtime:other"]),
    st.sampled_from(["*", "INSERT", "UPDATE"]),
    st.sampled_from([None, ("title",)]),
    st.booleans(),
)
images = st.builds(lambda owner, title: row(id=1, owner=owner, title=title), owners, titles)
written = st.one_of(
    images.map(lambda new: ("INSERT", None, new)),
    st.tuples(st.just("UPDATE"), images, images),
    images.map(lambda old: ("DELETE", old, None)),
)


@given(
    st.lists(written, min_size=1, max_size=8),
    st.lists(st.tuples(keys, st.integers(0, 7)), min_size=1, max_size=8),
    st.sampled_from([3_000, 1_000_000]),
)
def test_shared_replays_give_each_channel_exactly_what_it_would_get_alone(
    history: Sequence[tuple[str, object, object]],
    asked: Sequence[tuple[AudienceKey, int]],
    most_bytes: int,
) -> None:
    changes, _ = begun(most_bytes)
    events = [
        DatabaseEvent(seq, seq, RELATION, op, old, new)  # type: ignore[arg-type]
        for seq, (op, old, new) in enumerate(history, start=1)
    ]
    # Twice, so that all that can be shared is; each from its own cursor.
    for audience, cursor in [*asked, *asked]:
        for event in events[cursor:]:
            assert texts(changes, audience, event) == alone(audience, event)


def test_texts_of_other_characters_count_for_more_since_they_occupy_more() -> None:
    sizes = []
    for title in ("a" * 1_000, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 1_000):
        changes, _ = begun()
        event = insert(1, owner=7, title=title)
        before = changes.size
        (frame,) = changes.audience(key()).found(event).frames
        sizes.append(changes.size - before - 3 * event.size)
        assert sizes[-1] > 2 * len(str(frame.message).encode())
    assert sizes[1] > 2 * sizes[0]
