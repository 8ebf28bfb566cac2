"""A fault of code while sets move: after the resync that follows, nobody sees more than he may."""

from __future__ import annotations

import itertools
import sys
from types import FrameType
from typing import Any

import pytest
from django.db import connections

from realtime.event_log import sequencer
from realtime.event_log.position import Position
from tests.support.live_sets import ROOMS, listening, policies, started
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server
from tests.zoo.models import Member, Note, Team

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]

# The files whose lines move the sets and let the indexes follow.
_MOVING = ("sets/live_set.py", "predicates/index.py", "subscriptions/entries.py")
# Every line would take a minute; each eighth one is in every step of the move.
_STRIDE = 8
_FILTERS: tuple[dict[str, Any], ...] = ({}, {"filter": "title=neq.b"}, {"filter": "title=eq.b"})


class _FaultAtLine:
    """Raises at the `at`th line of `_MOVING` that is run while the block runs."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._before: Any = None

    @property
    def raised(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> _FaultAtLine:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *failure: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(_MOVING):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                raise RuntimeError("a fault of code")
        return self._trace


async def _shift(server: Server, fault: _FaultAtLine) -> None:
    """Follow the change that is next in the log, as a dispatcher does."""
    await db(lambda: sequencer.number(connections["default"], 10_000))
    head = await server.reader.head()
    (event,) = await server.reader.from_table(server.log.seq, head.seq)
    try:
        with fault:
            await server.rebinding.shift(event)
    except RuntimeError:
        await server.rebinding.restart(Position(head.epoch, head.seq))
        server.log.start(head)
    else:
        server.log.append(event)


async def _all_listening(server: Server, people: list[Any]) -> list[FakeSubscriber]:
    return [
        await listening(server, subject, **filters) for subject in people for filters in _FILTERS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["comes", "goes"])
async def test_wherever_a_move_of_sets_breaks_off_a_resync_leaves_what_a_new_process_has(
    people: list[Any], change: str
) -> None:
    team, *subjects = people
    other = await db(Team.objects.create, name="other")
    # Beside the policy that reads a set, one that reads a set behind a set.
    await db(policies, {"title__in": ROOMS})
    ada, bob = (subject.user for subject in subjects)
    await db(Member.objects.create, user=ada, team=team)
    await db(Member.objects.create, user=bob, team=other)
    if change == "goes":
        await db(Member.objects.create, user=ada, team=other)
    for point in itertools.count(1, _STRIDE):
        server = await started()
        subscribers = await _all_listening(server, subjects)
        if change == "comes":
            await db(Member.objects.create, user=ada, team=other)
        else:
            await db(Member.objects.filter(user=ada, team=other).delete)
        fault = _FaultAtLine(point)
        await _shift(server, fault)
        others = await _all_listening(fresh := await started(), subjects)
        for each in (*subscribers, *others):
            each.frames.clear()
        for note in (
            {"title": "a", "team": team},
            {"title": "a", "team": other},
            {"title": "room:other"},
        ):
            await db(Note.objects.create, **note)
        await server.feed()
        await fresh.feed()
        got = [len(each.frames) for each in subscribers]
        assert got == [len(each.frames) for each in others], f"broken off at line {point}"
        # Every index forgets what it has.
        for each in subscribers:
            server.channels.remove(each)
        if not fault.raised:
            break
        if change == "comes":
            await db(Member.objects.filter(user=ada, team=other).delete)
        else:
            await db(Member.objects.create, user=ada, team=other)
    assert point > 20
