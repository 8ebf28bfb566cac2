"""Planners that joins share for a moment are never older than a change that is known."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from django.contrib.auth.models import User

from auth_rls import Subject
from realtime.subscriptions.planner import Plan, Planner
from realtime.subscriptions.planners import Planners
from realtime.subscriptions.request import Request
from tests.support.socket_client import db
from tests.support.subscriptions import FakeSubscriber, Server, bindings

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


async def test_those_who_join_alike_share_one_plan(granted: Any) -> None:
    def plans() -> list[Any]:
        granted("view_note", using=view_by("last_name"), audience="authenticated")
        planner = Planner()
        ada, bob = (User.objects.create_user(name, last_name=name) for name in ("ada", "bob"))
        return [
            planner.quick_plan(Subject.from_user(user), bindings(table=table))
            for user, table in ((ada, "zoo_note"), (ada, "zoo_note"), (bob, "zoo_note"), (ada, "x"))
        ]

    first, again, of_other, elsewhere = await db(plans)
    assert first is again
    assert first.subscriptions != of_other.subscriptions
    assert elsewhere.subscriptions == () and elsewhere.problems[0]


def view_by(field: str) -> dict[str, Any]:
    return {"title": f"$user.{field}"}


def rls_of(planner: Planner, subject: Subject) -> Any:
    return planner.plan(subject, bindings()).subscriptions[0].rls


async def test_a_user_read_later_is_judged_by_what_the_user_is_then(granted: Any) -> None:
    def verdicts() -> tuple[Any, Any, Any]:
        granted("view_note", using=view_by("last_name"), audience="authenticated")
        user = User.objects.create_user("ada", last_name="before")
        planner = Planner()
        found = []
        for name in ("before", "after", "before"):
            User.objects.filter(pk=user.pk).update(last_name=name)
            found.append(rls_of(planner, Subject.from_user(User.objects.get(pk=user.pk))))
        return found[0], found[1], found[2]

    before, after, again = await db(verdicts)
    assert before != after
    assert before == again


async def test_who_names_nobody_is_not_judged_as_the_user_of_that_name_was(granted: Any) -> None:
    """As where keys of users are text, and a user was deleted a moment ago."""

    def verdicts() -> tuple[Any, Any]:
        granted("view_note", using=view_by("last_name"), audience="authenticated")
        planner = Planner()
        user = Subject.from_user(User.objects.create_user("ada", last_name="mine"))
        nobody = replace(user, user=None)
        assert nobody == user
        return rls_of(planner, user), rls_of(planner, nobody)

    somebody, nobody = await db(verdicts)
    assert somebody != nobody


@pytest.mark.parametrize(
    "binding", [{"table": "zoo_nota"}, {"filter": "title=match.a.*b"}], ids=["hint", "program"]
)
async def test_what_takes_long_to_plan_is_not_planned_on_the_event_loop(
    monkeypatch: Any, binding: dict[str, Any]
) -> None:
    loop = threading.get_ident()
    where: list[bool] = []

    def watched(plan: Callable[..., Plan]) -> Callable[..., Plan]:
        def planned(*args: Any) -> Plan:
            where.append(threading.get_ident() == loop)
            return plan(*args)

        return planned

    for name in ("plan", "quick_plan"):
        monkeypatch.setattr(Planner, name, watched(getattr(Planner, name)))
    server = Server()
    await server.start()
    for _ in range(3):
        request = Request(Subject.anonymous(), bindings(**binding))
        await server.subscriptions.add(FakeSubscriber(), request)
    assert where == [False] * 3
    where.clear()
    for _ in range(3):
        request = Request(Subject.anonymous(), bindings(filter="title=eq.a"))
        await server.subscriptions.add(FakeSubscriber(), request)
    assert where[-1]
