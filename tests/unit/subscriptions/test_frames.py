"""Frames of a change: encoded once, and to each audience only what it may see."""

from __future__ import annotations

import json
from typing import Any

from auth_rls.predicates.predicate import TRUE, Predicate, Test
from realtime.event_log.event import DatabaseEvent
from realtime.protocol.change_frame import ChangeFrame
from realtime.subscriptions.frames import ChangeFrames
from realtime.subscriptions.index import AudienceKey, Subscription, SubscriptionIndex
from realtime.subscriptions.seen_change import SeenChange
from tests.support.small_rows import RELATION, row


def key(
    topic: str,
    *,
    version: str = "2.0.0",
    frame: ChangeFrame = ChangeFrame.BINDINGS,
    id_: int = 1,
    rls: Predicate = TRUE,
    select: tuple[str, ...] | None = None,
    live: bool = False,
) -> AudienceKey:
    item = Subscription(id_, "public", "t", "*", TRUE, rls, select=select, live=live)
    return AudienceKey(topic, version, (item,), frame)


def sent(event: DatabaseEvent, *keys: AudienceKey) -> dict[str, Any]:
    """By topic, the frame that its audience gets of an event."""

    def failed(_: Subscription, error: Exception) -> None:
        raise error

    index: SubscriptionIndex[str] = SubscriptionIndex(failed)
    for each in keys:
        index.set(each.topic, each)
    made = ChangeFrames(event)
    return {d.audience.key.topic: json.loads(made.of(d).message) for d in index.match(event)}


def update(before: int, after: int) -> DatabaseEvent:
    old, new = row(id=1, owner=before, title="a"), row(id=1, owner=after, title="b")
    return DatabaseEvent(7, 1, RELATION, "UPDATE", old, new)


def test_code_gets_the_change_itself_with_what_it_may_see_of_it() -> None:
    hidden = Test("owner", "exact", 2)
    event = update(1, 2)

    def failed(_: Subscription, error: Exception) -> None:
        raise error

    index: SubscriptionIndex[str] = SubscriptionIndex(failed)
    index.set("code", key("", frame=ChangeFrame.VALUE, rls=hidden, select=("title",)))
    made = ChangeFrames(event)
    (delivery,) = index.match(event)
    assert made.of(delivery) == SeenChange(event, ("title",), False, "UPDATE")
    assert made.encoded == 0 and len(made.of(delivery)) > event.size


def test_audiences_of_one_event_get_the_same_data_with_their_own_topics_and_ids() -> None:
    found = sent(
        update(1, 1),
        key("realtime:a"),
        key("realtime:b", id_=5),
        key("realtime:c", version="1.0.0"),
        key("realtime:d", frame=ChangeFrame.BARE),
    )
    data = found["realtime:a"][4]["data"]
    assert data["record"] == {"id": 1, "owner": 1, "title": "b"}
    assert data["old_record"] == {"id": 1, "owner": 1, "title": "a"}
    assert found["realtime:a"][:4] == [None, None, "realtime:a", "postgres_changes"]
    assert found["realtime:b"] == [
        None,
        None,
        "realtime:b",
        "postgres_changes",
        {"ids": [5], "data": data},
    ]
    assert found["realtime:c"]["payload"] == {"ids": [1], "data": data}
    assert found["realtime:d"] == [None, None, "realtime:d", "UPDATE", data]


def test_an_audience_that_may_not_see_the_old_row_gets_nothing_of_it_in_any_order() -> None:
    sees = key("realtime:sees")
    hidden = key("realtime:hidden", rls=Test("owner", "exact", 2))
    for keys in ((sees, hidden), (hidden, sees)):
        found = sent(update(1, 2), *keys)
        assert found["realtime:sees"][4]["data"]["old_record"]["owner"] == 1
        assert found["realtime:hidden"][4]["data"]["old_record"] == {}


def test_an_audience_gets_the_columns_that_it_asked_for_in_any_order() -> None:
    everything = key("realtime:all")
    titles = key("realtime:titles", select=("title",))
    for keys in ((everything, titles), (titles, everything)):
        found = sent(update(1, 1), *keys)
        assert found["realtime:all"][4]["data"]["record"] == {"id": 1, "owner": 1, "title": "b"}
        assert found["realtime:titles"][4]["data"]["record"] == {"id": 1, "title": "b"}


def test_a_change_that_is_something_else_to_a_live_set_has_its_own_data() -> None:
    found = sent(
        update(1, 2),
        key("realtime:plain"),
        key("realtime:left", rls=Test("owner", "exact", 1), live=True),
        key("realtime:came", rls=Test("owner", "exact", 2), live=True),
    )
    data = {topic: frame[4]["data"] for topic, frame in found.items()}
    assert {topic: each["type"] for topic, each in data.items()} == {
        "realtime:plain": "UPDATE",
        "realtime:left": "DELETE",
        "realtime:came": "INSERT",
    }
    assert data["realtime:left"]["old_record"] == {"id": 1}
    assert "record" not in data["realtime:left"]
    assert "old_record" not in data["realtime:came"]


def test_audiences_that_joined_alike_and_see_the_same_share_one_frame() -> None:
    index: SubscriptionIndex[str] = SubscriptionIndex(lambda _, error: None)
    seen = [Test("owner", "lt", 10 + n) for n in range(20)]
    for number, rls in enumerate(seen):
        index.set(str(number), key("realtime:room", rls=rls))
    index.set("blind", key("realtime:room", rls=Test("owner", "exact", 1)))
    event = update(2, 1)
    made = ChangeFrames(event)
    frames = [made.of(delivery) for delivery in index.match(event)]
    assert len(frames) == 21
    assert made.encoded == len({id(frame) for frame in frames}) == 2


def test_the_receipt_is_in_the_frame_that_is_made_for_the_writer_and_in_no_other() -> None:
    old, new = row(id=1, owner=1, title="a"), row(id=1, owner=1, title="b")
    event = DatabaseEvent(7, 1, RELATION, "UPDATE", old, new, "5", "receipt")
    index: SubscriptionIndex[str] = SubscriptionIndex(lambda _, error: None)
    for each in (key("realtime:a"), key("realtime:b", frame=ChangeFrame.BARE)):
        index.set(each.topic, each)
    made = ChangeFrames(event)
    for delivery in index.match(event):
        shared, own = made.of(delivery), made.of(delivery, "receipt")
        assert shared is made.of(delivery)
        assert own is made.of(delivery, "receipt")
        assert "receipt" not in str(shared.message)
        payload = json.loads(own.message)[4]
        assert payload.get("data", payload)["tx"] == "receipt"
