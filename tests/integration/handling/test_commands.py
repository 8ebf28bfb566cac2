"""`manage.py handlers`, workers and servers that run handlers, and what is kept for them."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import AsyncRequestFactory

from realtime import checks, on_change
from realtime.handling import holds, operations
from realtime.handling.overview import overview
from realtime.models import Handler, WalNumber
from realtime.process import early_start, pruning
from realtime.process.hub import hub
from realtime.wal.head import read_head
from tests.support.handlers import begun, row, running, until
from tests.support.log import number_all
from tests.support.socket_client import db
from tests.support.waiting import auntil
from tests.zoo.models import Note, Team


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("handlers", *args, stdout=out)
    return out.getvalue()


def write(*titles: str) -> None:
    for title in titles:
        Note.objects.create(title=title)
    number_all()


def ignore(change: Any) -> None:
    """A handler."""


# --- the command ----------------------------------------------------------------------------------


def test_the_list_tells_of_every_handler() -> None:
    on_change(Note, name="runs")(ignore)
    on_change(Note, name="waits")(ignore)
    on_change(Note, name="is.new")(ignore)
    Handler.objects.create(name="gone", epoch=read_head(connection).epoch, seq=0)
    operations.pause("default", "waits")
    with running(names=["runs"]):
        begun("runs")
        until(lambda: row("runs").owner)
        write("a", "b")
        until(lambda: row("runs").seq == 2)
        states = {one["name"]: one for one in json.loads(run("list", "--json"))}
    assert {name: one["state"] for name, one in states.items()} == {
        "runs": "running",
        "waits": "paused",
        "is.new": "new",
        "gone": "unknown",
    }
    assert (states["runs"]["seq"], states["runs"]["lag"], states["runs"]["error"]) == (2, 0, None)
    assert states["gone"]["lag"] == 2
    assert "No code has this handler" in states["gone"]["error"]
    (said,) = checks.check_handlers_go_on(databases=["default"])
    assert (said.id, said.msg[:34]) == ("realtime.W030", "The handler 'gone' is unknown at 0")
    text = run("list").splitlines()
    assert text[0].split() == ["name", "state", "seq", "lag", "error"]
    assert len(text) == 5


def test_the_list_names_the_error_of_a_handler_that_stands() -> None:
    @on_change(Note, name="bad", attempts=1)
    def fail(change: Any) -> None:
        raise ValueError("poison\nin two lines")

    with running():
        begun("bad")
        write("a")
        until(lambda: row("bad").stopped)
    (state,) = overview("default")
    assert (state.state, state.error) == ("stopped", "ValueError: poison\nin two lines")
    assert "ValueError: poison in two lines" in run("list")
    assert "leaves change 1 out" in run("skip", "bad")
    assert json.loads(run("list", "--json"))[0]["state"] == "waiting"


def test_each_action_says_what_it_did_and_each_mistake_is_one_line() -> None:
    on_change(Note, name="notes")(ignore)
    assert run("pause", "notes") == "notes is paused at 0.\n"
    write("a", "b")
    assert run("resume", "notes") == "notes goes on after 0.\n"
    assert run("replay", "notes", "--from", "2") == "notes goes on with 2, where it stood at 0.\n"
    for args in (
        ("pause", "nots"),
        ("replay", "notes", "--from", "0"),
        ("replay", "notes", "--from", "4"),
        ("run", "nots"),
    ):
        with pytest.raises(CommandError) as error:
            run(*args)
        assert "\n" not in str(error.value)


def test_without_handlers_the_list_says_so() -> None:
    assert run("list") == "There are no handlers. See realtime.on_change.\n"
    with pytest.raises(CommandError, match="There are no handlers"):
        run("run")


# --- servers --------------------------------------------------------------------------------------


async def test_an_embedded_server_runs_handlers(closing_hub: None) -> None:
    got: list[str] = []
    on_change(Note, name="notes")(lambda change: got.append(change.new["title"]))
    await hub().ready()
    await auntil(lambda: db(Handler.objects.filter(pk="notes").exists), "the handler's row")
    await db(Note.objects.create, title="a")

    async def handled() -> bool:
        return got == ["a"]

    await auntil(handled, "the change")


async def test_an_embedded_server_runs_handlers_from_its_first_request_on(
    closing_hub: None,
) -> None:
    on_change(Note, name="notes")(ignore)
    early_start.with_the_first_request()
    scope = AsyncRequestFactory()._base_scope(path="/nowhere")
    request = ApplicationCommunicator(get_asgi_application(), scope)
    await request.send_input({"type": "http.request", "body": b"", "more_body": False})
    assert (await request.receive_output(10))["type"] == "http.response.start"
    await auntil(lambda: db(Handler.objects.filter(pk="notes").exists), "the handler's row")


# --- pruning --------------------------------------------------------------------------------------


def test_what_a_handler_has_yet_to_read_is_kept() -> None:
    on_change(Note, name="notes")(ignore)
    operations.pause("default", "notes")
    write("a", "b", "c")
    pruned = pruning.prune(timedelta(seconds=-1))
    assert (pruned.entries, pruned.held_at) == (0, 1)
    with running():
        operations.resume("default", "notes")
        until(lambda: row("notes").seq == 3)
    assert pruning.prune(timedelta(seconds=-1)).entries == 3


def test_it_is_not_kept_for_ever() -> None:
    epoch = read_head(connection).epoch
    Handler.objects.create(name="gone", epoch=epoch, seq=0)
    write("a", "b", "c")
    old = WalNumber.objects.filter(seq__lte=2)
    for number in old:
        WalNumber.objects.filter(seq=number.seq).update(commit_us=number.seq)
    assert holds.lowest_needed("default") == 3
    old.update(commit_us=WalNumber.objects.get(seq=3).commit_us)
    assert holds.lowest_needed("default") == 1
    assert holds.lowest_needed("default", most=2) == 2
    Handler.objects.update(stopped=Handler.Stopped.LOST)
    assert holds.lowest_needed("default") is None
    assert not Team.objects.exists()
