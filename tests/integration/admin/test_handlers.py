"""Handlers and dead letters in the admin: who may look, who may act, and what is asked first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.urls import reverse

import realtime
from realtime import on_change
from realtime.models import DeadLetter, Handler, HandlerDone
from realtime.wal import published
from tests.support.handler_rows import dead_letter, epoch, handler
from tests.support.handlers import no_others
from tests.support.log import number_all
from tests.zoo.models import Note

HANDLERS = reverse("admin:realtime_handler_changelist")
LETTERS = reverse("admin:realtime_deadletter_changelist")


@pytest.fixture(autouse=True)
def no_handlers(wal: type) -> Iterator[None]:
    with no_others():
        yield


@pytest.fixture
def staff(db: Any) -> Callable[..., Client]:
    """`staff("view_handler")`: a client of somebody with these permissions."""

    def make(*permissions: str) -> Client:
        user = get_user_model().objects.create_user("ops", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return make


def act(client: Client, url: str, action: str, *keys: Any, **more: Any) -> str:
    data = {"action": action, "_selected_action": list(keys), **more}
    response = client.post(url, data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


OPERATOR = ("view_handler", "change_handler")


def test_the_list_says_how_handlers_stand(staff: Callable[..., Client]) -> None:
    Note.objects.bulk_create([Note(title="a"), Note(title="b")])
    number_all()
    handler("invoices", seq=2)
    handler("search", seq=0, stopped="failed", failed_seq=1, last_error="OSError: gone")
    dead_letter("invoices", 1)
    client = staff("view_handler")
    text = client.get(HANDLERS).content.decode()
    assert "stopped: a change failed at every attempt" in text and "runs" in text
    detail = reverse("admin:realtime_handler_change", args=["search"])
    assert "OSError: gone" in client.get(detail).content.decode()


def test_who_may_only_view_is_offered_no_action_and_may_not_act(
    staff: Callable[..., Client],
) -> None:
    handler("invoices")
    client = staff("view_handler")
    assert 'value="pause"' not in client.get(HANDLERS).content.decode()
    act(client, HANDLERS, "pause", "invoices")
    assert not Handler.objects.get().paused


def test_who_may_not_view_sees_nothing(staff: Callable[..., Client]) -> None:
    client = staff("view_note")
    assert client.get(HANDLERS).status_code == client.get(LETTERS).status_code == 403


def test_handlers_are_paused_and_resumed_and_that_is_noted(staff: Callable[..., Client]) -> None:
    handler("invoices", stopped="failed", attempts=5)
    handler("search")
    client = staff(*OPERATOR)
    assert "2 handlers are paused." in act(client, HANDLERS, "pause", "invoices", "search")
    assert set(Handler.objects.values_list("paused", "owner")) == {(True, "")}
    assert "1 handler goes on." in act(client, HANDLERS, "resume", "invoices")
    row = Handler.objects.get(pk="invoices")
    assert (row.paused, row.stopped, row.attempts) == (False, "", 0)
    said = LogEntry.objects.filter(object_id="invoices").values_list("change_message", flat=True)
    assert sorted(said) == ["Paused.", "Resumed."]


def test_a_replay_asks_for_the_seq_first(staff: Callable[..., Client]) -> None:
    Note.objects.bulk_create([Note(title="a"), Note(title="b"), Note(title="c")])
    number_all()
    handler("invoices", seq=3)
    client = staff(*OPERATOR)
    assert "Handle changes again" in act(client, HANDLERS, "replay", "invoices")
    text = act(client, HANDLERS, "replay", "invoices", post="yes", seq="none")
    assert "Enter a whole number" in text
    assert Handler.objects.get().seq == 3
    assert "begins again" in act(client, HANDLERS, "replay", "invoices", post="yes", seq="2")
    assert Handler.objects.get().seq == 1


def test_a_seq_that_is_not_kept_is_refused_by_the_name_of_the_handler(
    staff: Callable[..., Client],
) -> None:
    Note.objects.create(title="a")
    number_all()
    handler("invoices", seq=1)
    text = act(staff(*OPERATOR), HANDLERS, "replay", "invoices", post="yes", seq="99")
    said = re.findall(r'<li class="error">(.*?)</li>', text)
    assert said == ["“invoices”: The log keeps 1 to 1; 99 is not in it."]
    assert not LogEntry.objects.exists()


def test_a_skip_shows_the_change_first(staff: Callable[..., Client]) -> None:
    handler("invoices", epoch=epoch(), stopped="failed", failed_seq=7, last_error="Boom: no")
    client = staff(*OPERATOR)
    text = act(client, HANDLERS, "skip", "invoices")
    assert "seq 7" in text and "Boom: no" in text
    assert Handler.objects.get().stopped == "failed"
    act(client, HANDLERS, "skip", "invoices", post="yes")
    assert Handler.objects.get().stopped == ""
    assert HandlerDone.objects.get().seq == 7


def test_a_handler_is_forgotten_with_its_marks_by_who_may_delete(
    staff: Callable[..., Client],
) -> None:
    handler("invoices")
    HandlerDone.objects.create(handler="invoices", seq=9)
    client = staff(*OPERATOR, "delete_handler")
    act(client, HANDLERS, "delete_selected", "invoices", post="yes")
    assert not Handler.objects.exists() and not HandlerDone.objects.exists()


def kept(seq: int) -> DeadLetter:
    change = {
        "type": "INSERT", "schema": "public", "table": "zoo_note", "model": "zoo.Note", "pk": seq,
        "old": None, "new": {"id": seq, "title": "<b>a</b>"}, "columns": ["id", "title"],
        "seq": seq, "epoch": epoch(), "commit_timestamp": None, "actor": None,
    }  # fmt: skip
    return dead_letter("invoices", seq, change=change, error="Traceback\nOSError: gone")


def test_dead_letters_show_the_change_and_the_error_escaped(staff: Callable[..., Client]) -> None:
    letter = kept(4)
    client = staff("view_deadletter")
    text = client.get(LETTERS).content.decode()
    assert "OSError: gone" in text and "INSERT 4" in text and "zoo_note" in text
    detail = reverse("admin:realtime_deadletter_change", args=[letter.pk])
    page = client.get(detail).content.decode()
    assert "&lt;b&gt;a&lt;/b&gt;" in page and "<b>a</b>" not in page
    act(client, LETTERS, "send_again", letter.pk)
    act(client, LETTERS, "delete_selected", letter.pk, post="yes")
    assert DeadLetter.objects.exists()


@pytest.mark.usefixtures("declarations")
def test_dead_letters_do_not_show_what_is_not_published_any_more(
    staff: Callable[..., Client],
) -> None:
    letter = kept(7100)
    client = staff("view_deadletter")
    detail = reverse("admin:realtime_deadletter_change", args=[letter.pk])
    realtime.publish(Note, exclude=["title"])
    page = client.get(detail).content.decode()
    assert "&lt;b&gt;a" not in page and "Not published, and not shown: title." in page
    assert "INSERT 7100" in client.get(LETTERS).content.decode()
    assert client.get(LETTERS, {"change__new__title__startswith": "<"}).status_code == 400
    del published.declarations[Note._meta.label_lower]
    assert "INSERT 7100" not in client.get(LETTERS).content.decode()


@pytest.mark.parametrize("atomic", [False, True])
def test_dead_letters_are_sent_again_or_dropped(
    staff: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    got: list[int] = []

    @on_change(Note, name="invoices")
    def invoices(change: Any) -> None:
        if change.pk == 6:
            raise OSError("still gone")
        got.append(change.pk)

    letters = [kept(5), kept(6)]
    client = staff("view_deadletter", "change_deadletter", "delete_deadletter")
    text = act(client, LETTERS, "send_again", *(letter.pk for letter in letters))
    assert "1 change is sent again." in text
    assert "“6 of invoices”: The handler failed again: OSError: still gone" in text
    assert got == [5]
    assert DeadLetter.objects.get() == letters[1]
    act(client, LETTERS, "delete_selected", letters[1].pk, post="yes")
    assert not DeadLetter.objects.exists()
