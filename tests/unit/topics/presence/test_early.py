"""What was written behind the position that rights are known for waits, and keeps its order."""

from __future__ import annotations

from realtime.event_log.position import Position
from realtime.topics.presence.changes import PresenceChanges
from realtime.topics.presence.early import EarlyChanges

AT = Position("e", 5)


def changes(number: int, seq: int = 0, process: str = "p", epoch: str = "e") -> PresenceChanges:
    return PresenceChanges(process, number - 1, number, [], [], epoch=epoch if seq else "", seq=seq)


def due(early: EarlyChanges[int], at: Position | None) -> list[int]:
    return [value for _, value in early.due(at)]


def test_only_what_is_behind_the_position_waits() -> None:
    early: EarlyChanges[int] = EarlyChanges()
    assert not early.put(changes(1), 1, AT)
    assert not early.put(changes(2, seq=5), 2, AT)
    assert early.put(changes(3, seq=6), 3, AT)
    assert due(early, AT) == []
    assert due(early, Position("e", 6)) == [3]
    assert due(early, Position("e", 6)) == []


def test_later_changes_of_a_process_wait_with_it_and_no_other() -> None:
    early: EarlyChanges[int] = EarlyChanges()
    early.put(changes(1, seq=6), 1, AT)
    assert early.put(changes(2), 2, AT)
    assert early.put(changes(3, seq=8), 3, AT)
    assert not early.put(changes(1, process="q"), 4, AT)
    assert due(early, Position("e", 7)) == [1, 2]
    assert due(early, Position("e", 8)) == [3]


def test_nothing_waits_for_another_epoch_or_where_nobody_has_rights() -> None:
    early: EarlyChanges[int] = EarlyChanges()
    assert not early.put(changes(1, seq=9, epoch="other"), 1, AT)
    assert not early.put(changes(2, seq=9), 2, None)
    early.put(changes(3, seq=9), 3, AT)
    assert due(early, Position("next", 1)) == [3]


def test_what_waits_of_others_is_bounded_and_the_process_with_most_is_forgotten() -> None:
    early: EarlyChanges[int] = EarlyChanges("own", most=10)
    for number in range(1, 30):
        assert early.put(changes(number, seq=6, process="own"), number, AT)
    early.put(changes(1, seq=6, process="small"), 100, AT)
    for number in range(1, 30):
        assert early.put(changes(number, seq=6, process="flood"), 200, AT)
    found = due(early, Position("e", 6))
    assert set(range(1, 30)) <= set(found) and 100 in found
    assert found.count(200) < 10
    assert not early.put(changes(30, process="flood"), 1, Position("e", 6))
