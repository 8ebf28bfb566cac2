"""What `changes` may be asked for, and what it says of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User

from auth_rls import Subject
from realtime import AccessRevoked
from realtime.change_stream.asked import Asked, asked_for
from realtime.protocol.cursor import Cursor
from tests.zoo.models import Member, Note


def asked(what: Any = Note, **arguments: Any) -> Asked:
    given = {
        "subject": None,
        "events": "*",
        "filter": None,
        "since": None,
        "snapshot": False,
        "live": False,
    }
    return asked_for(what, **{**given, **arguments})


def test_nobody_is_the_service_role() -> None:
    assert asked().subject.role == "service_role"


@pytest.mark.parametrize("subject", [Subject.anonymous(), Subject.service()])
def test_a_subject_is_itself(subject: Subject) -> None:
    assert asked(subject=subject).subject == subject


def test_a_user_is_its_subject() -> None:
    assert asked(subject=User(pk=7, username="ada")).subject.user_id == 7
    assert asked(subject=AnonymousUser()).subject.role == "anon"


def test_an_inactive_user_is_refused() -> None:
    with pytest.raises(AccessRevoked, match="inactive"):
        asked(subject=User(pk=7, is_active=False))


@pytest.mark.parametrize("subject", ["ada", 7, object(), User, {"role": "anon"}])
def test_other_subjects_are_refused(subject: Any) -> None:
    with pytest.raises(TypeError, match="subject is None"):
        asked(subject=subject)


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ("*", ["*"]),
        ("update", ["UPDATE"]),
        (("UPDATE", "INSERT"), ["INSERT", "UPDATE"]),
        (["INSERT", "UPDATE", "DELETE"], ["*"]),
        ({"INSERT", "*"}, ["*"]),
    ],
)
def test_events_are_bindings(events: Any, names: list[str]) -> None:
    bindings = asked(events=events).bindings
    assert [binding.event for binding in bindings] == names
    assert len({binding.id for binding in bindings}) == len(bindings)


@pytest.mark.parametrize(
    ("events", "error", "text"),
    [
        ("INSRT", ValueError, "did you mean 'INSERT'"),
        ("TRUNCATE", ValueError, "ResyncRequired"),
        ((), ValueError, "names none"),
        (7, TypeError, "several"),
        ((7,), TypeError, "texts"),
    ],
)
def test_other_events_are_refused(events: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        asked(events=events)


@pytest.mark.parametrize(
    ("since", "cursor"),
    [
        (7, Cursor(seq=7)),
        ("7", Cursor(seq=7)),
        ("abc:7", Cursor(seq=7, epoch="abc")),
        ("1970-01-01T00:00:01.000002+00:00", Cursor(commit_us=1_000_002)),
        (datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC), Cursor(commit_us=1_000_002)),
        (
            datetime(1970, 1, 1, 2, 0, 1, tzinfo=timezone(timedelta(hours=2))),
            Cursor(commit_us=1_000_000),
        ),
        (None, None),
    ],
)
def test_since_is_read(since: Any, cursor: Cursor | None) -> None:
    assert asked(since=since).bindings[0].since == cursor


@pytest.mark.parametrize(
    ("since", "error", "text"),
    [
        (datetime(1970, 1, 1), ValueError, "time zone"),
        ("yesterday", ValueError, "cannot be read"),
        ("", ValueError, "cannot be read"),
        (-1, ValueError, "cannot be read"),
        (2**70, ValueError, "cannot be read"),
        (True, TypeError, "bool"),
        (1.5, TypeError, "float"),
    ],
)
def test_other_cursors_are_refused(since: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        asked(since=since)


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        (Member, ValueError, r"zoo.Member is not published.*@realtime.publish.*migrate"),
        (Member.objects.all(), ValueError, "not published"),
        (Note.objects, TypeError, r"\.all\(\)"),
        (Note(title="a"), TypeError, "not Note"),
        ("zoo.Note", TypeError, "not str"),
    ],
)
def test_what_cannot_be_followed_is_refused(what: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        asked(what)


def test_a_filter_is_read_at_once() -> None:
    assert asked(filter="score=gt.3").bindings[0].filter == "score=gt.3"
    with pytest.raises(ValueError, match="Did you mean 'score'"):
        asked(filter="scor=gt.3")
    with pytest.raises(ValueError, match="whole number"):
        asked(filter="score=gt.many")
    with pytest.raises(TypeError, match="text"):
        asked(filter={"score": 3})


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="live"):
        asked(live=True, events="INSERT")
    with pytest.raises(ValueError, match="snapshot"):
        asked(snapshot=True, events=("UPDATE", "DELETE"))
    with pytest.raises(TypeError, match="snapshot"):
        asked(snapshot={"limit": 3})
    found = asked(snapshot=True, events=("INSERT", "UPDATE")).bindings
    assert [binding.snapshot is not None for binding in found] == [True, False]
