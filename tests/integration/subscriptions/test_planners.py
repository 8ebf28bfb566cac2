"""Planners that joins share for a moment are never older than a change that is known."""

from __future__ import annotations

import itertools
import sys
from types import FrameType
from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject
from realtime.subscriptions.planner import Planner
from realtime.subscriptions.planners import Planners
from tests.support.socket_client import db
from tests.support.subscriptions import bindings

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("wal")]


class Change:
    """A change of permissions that comes before the given step of `Planners.get`, as one does that
    another thread notices."""

    def __init__(self, planners: Planners, step: int) -> None:
        self._planners = planners
        self._left = step
        self._reading = False
        self.came = False
        #: Whether the policies were being read when it came, or had been read.
        self.overtook = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is Planner.__init__.__code__:
            self._reading = True
        return self._step if frame.f_code is Planners.get.__code__ else None

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._left -= event == "line"
        if not self._left and not self.came:
            self.came, self.overtook = True, self._reading
            self._planners.forget()
        return self._step


def test_a_planner_that_a_change_has_overtaken_is_not_shared_whenever_it_came() -> None:
    overtaken = 0
    for step in itertools.count(1):
        planners = Planners()
        change = Change(planners, step)
        before = sys.gettrace()
        sys.settrace(change)
        try:
            first = planners.get()
        finally:
            sys.settrace(before)
        if not change.came:
            break
        overtaken += change.overtook
        assert not change.overtook or planners.get() is not first, f"step {step}"
    assert overtaken


def test_without_a_change_a_planner_is_shared() -> None:
    planners = Planners()
    assert planners.get() is planners.get()


async def test_those_whom_policies_treat_alike_share_their_conditions(granted: Any) -> None:
    def conditions() -> list[Any]:
        granted("view_note", using={"is_public": True}, audience="authenticated")
        planner = Planner()
        subjects = [Subject.from_user(User.objects.create_user(name)) for name in ("ada", "bob")]
        plans = [planner.plan(each, bindings()) for each in (*subjects, Subject.anonymous())]
        return [plan.subscriptions[0].rls for plan in plans]

    one, other, nobody = await db(conditions)
    assert one is other
    assert nobody != one
