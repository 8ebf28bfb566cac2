"""Who is told of the actor of a change, at every door that tells of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from auth_rls import Subject
from auth_rls.subjects.subject import ANON, AUTHENTICATED, SERVICE_ROLE
from realtime.wal.actor import shown_actor

SUPERUSER = SimpleNamespace(is_active=True, is_superuser=True)


@pytest.mark.parametrize(
    "subject",
    [
        Subject.service(),
        Subject(AUTHENTICATED, user_id=7),
        Subject(AUTHENTICATED, user_id="7"),
        Subject(AUTHENTICATED, user_id=8, user=SUPERUSER),
    ],
    ids=["the service role", "the writer", "the writer by a token", "a superuser"],
)
def test_who_wrote_and_who_sees_every_row_is_told(subject: Subject) -> None:
    assert shown_actor("7", subject) == "7"


@pytest.mark.parametrize(
    "subject",
    [
        Subject(AUTHENTICATED, user_id=8),
        Subject.anonymous(),
        Subject(ANON, user_id=7),
        Subject(SERVICE_ROLE, user_id=7, may_bypass=False),
        Subject(AUTHENTICATED, user_id=8, user=SUPERUSER, may_bypass=False),
    ],
    ids=[
        "another user",
        "a visitor",
        "the writer who gave up its role",
        "a service role that bypasses nothing",
        "a superuser whose token bypasses nothing",
    ],
)
def test_nobody_else_is_told(subject: Subject) -> None:
    assert shown_actor("7", subject) is None


def test_a_visitor_is_not_the_actor_of_that_name() -> None:
    assert shown_actor("None", Subject.anonymous()) is None
    assert shown_actor(None, Subject.anonymous()) is None
