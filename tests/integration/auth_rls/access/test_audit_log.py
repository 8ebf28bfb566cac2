"""What policies did stands in the log, if wanted: who, what for and why, and no value."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from auth_rls import Subject, conf, visible
from auth_rls.access import audit_log
from auth_rls.access.authority import row_predicate
from auth_rls.access.record_limit import RecordLimit
from auth_rls.explain.askers import asker
from auth_rls.explain.questions import answer, question
from tests.support.policies import policy, user
from tests.zoo.models import Note

pytestmark = pytest.mark.django_db

MINE = {"owner": "$user.id"}


@pytest.fixture(autouse=True)
def room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "LIMIT", RecordLimit(100, 60))


@pytest.fixture
def logged(settings: Any) -> Iterator[list[logging.LogRecord]]:
    """The records, switched on."""
    settings.AUTH_RLS = {"LOG_EVENTS": True}
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("auth_rls.events")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def told(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    return [(record.action, record.reason) for record in records]  # type: ignore[attr-defined]


def test_nothing_is_logged_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "auth_rls.events")
    list(visible(Note.objects.all(), Subject.anonymous()))
    list(visible(Note.objects.all(), Subject.service()))
    assert caplog.records == []


def test_policies_that_apply_are_named(logged: list[logging.LogRecord]) -> None:
    ada = user("ada", "zoo.view_note")
    policy(MINE, name="Own notes", audience="permission")
    policy(True, name="wall", mode="restrictive")
    policy(True, name="logged off", audience="permission", on="zoo.change_note")
    list(visible(Note.objects.all(), ada))
    (record,) = logged
    assert (
        record.__dict__
        | {
            "action": "policy_applied",
            "permission": "zoo.view_note",
            "role": "authenticated",
            "user_id": ada.pk,
            "policies": ("Own notes", "wall"),
            "suppressed": 0,
        }
        == record.__dict__
    )
    assert "'Own notes', 'wall'" in record.getMessage()


def test_a_denial_says_why(logged: list[logging.LogRecord]) -> None:
    note = Note.objects.create(title="x")
    anonymous = AnonymousUser()
    assert not anonymous.has_perm("zoo.view_note", note)
    policy(True, audience="permission")
    assert not anonymous.has_perm("zoo.view_note", note)
    policy(MINE)
    assert not anonymous.has_perm("zoo.view_note", note)
    ada = user("ada", "zoo.add_note")
    policy(MINE)
    assert not ada.has_perm("zoo.view_note", Note.objects.create(title="y"))
    assert told(logged) == [
        ("policy_denied", "no permissive policy applies"),
        ("policy_denied", "no permissive policy applies"),
        ("policy_applied", "policies apply"),
        ("policy_denied", "the policies do not let this row through"),
        ("policy_applied", "policies apply"),
        ("policy_denied", "the policies do not let this row through"),
    ]


def test_an_add_that_is_denied_is_told(logged: list[logging.LogRecord]) -> None:
    ada = user("ada")
    policy(on="zoo.add_note", with_check=MINE)
    assert ada.has_perm("zoo.add_note", Note(title="x", owner=ada))
    assert not ada.has_perm("zoo.add_note", Note(title="x"))
    assert told(logged)[-1] == ("policy_denied", "the policies do not let this row through")
    assert len(logged) == 3


def test_who_bypasses_the_policies_is_told_at_every_door(logged: list[logging.LogRecord]) -> None:
    list(visible(Note.objects.all(), Subject.service()))
    row_predicate(Subject.service(), Note)
    list(visible(Note.objects.all(), user("root", is_superuser=True)))
    assert told(logged) == [
        ("policy_bypassed", "service role"),
        ("policy_bypassed", "service role"),
        ("policy_bypassed", "superuser"),
    ]
    assert [record.user_id for record in logged][:2] == [None, None]  # type: ignore[attr-defined]


def test_no_row_value_no_claim_and_no_key_gets_into_a_record(
    logged: list[logging.LogRecord],
) -> None:
    secret = "sesame-4711"
    note = Note.objects.create(pk=47114711, title=secret, score=815815)
    policy({"title": "$claims.secret", "score": 815815})
    subject = Subject(role="authenticated", claims={"secret": secret}, user_id=secret)
    assert list(visible(Note.objects.all(), subject)) == [note]
    row_predicate(subject, Note)
    assert not AnonymousUser().has_perm("zoo.view_note", note)
    assert len(logged) == 4
    written = "".join(str(record.__dict__) + record.getMessage() for record in logged)
    for value in (secret, "815815", "47114711"):
        assert value not in written


def test_a_flood_is_cut_off_and_counted(
    logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(audit_log.time, "monotonic", lambda: now)
    for _ in range(audit_log.MOST + 7):
        row_predicate(Subject.service(), Note)
    assert len(logged) == audit_log.MOST
    row_predicate(Subject.anonymous(), Note)
    assert len(logged) == audit_log.MOST + 1
    now = audit_log.PERIOD
    row_predicate(Subject.service(), Note)
    assert logged[-1].suppressed == 7  # type: ignore[attr-defined]
    assert "7 more like it were left out" in logged[-1].getMessage()


def test_only_the_kinds_that_are_wanted_are_logged(
    logged: list[logging.LogRecord], settings: Any
) -> None:
    settings.AUTH_RLS = {"LOG_EVENTS": ["bypassed"]}
    row_predicate(Subject.anonymous(), Note)
    row_predicate(Subject.service(), Note)
    assert told(logged) == [("policy_bypassed", "service role")]


@pytest.mark.parametrize("value", ["denied", 1, None, ["denied", "shown"], {"denied": True}])
def test_another_value_of_the_setting_is_refused(settings: Any, value: Any) -> None:
    settings.AUTH_RLS = {"LOG_EVENTS": value}
    with pytest.raises(ImproperlyConfigured, match=r"LOG_EVENTS.*applied, denied, bypassed"):
        conf.current()


def test_explaining_a_row_leaves_no_trace_of_the_one_explained(
    logged: list[logging.LogRecord], client: Client
) -> None:
    user("ada")
    note = Note.objects.create(title="x")
    policy(MINE)
    who = asker(user="ada")
    answer(who, question(who, "zoo.view_note", str(note.pk)))
    assert logged == []
