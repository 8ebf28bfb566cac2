"""The usual mistakes of a first hour, each made in the tutorial's project, and where they are told.

The project is that of the tutorial's first page. A mistake of the set-up is told by
`manage.py check` or by the command itself; one of the page by the browser's console and the
channel's status.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.acceptance.support.devtools import Browser, Page, wait_for
from tests.hosts.helpdesk import PATIENCE, Project, Server
from tests.support.tokens import token

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.migrated(tmp_path_factory.mktemp("helpdesk"), installed)


def test_the_project_of_the_tutorial_has_no_mistake_and_needs_no_channel_layer(
    project: Project,
) -> None:
    assert "no issues" in project.run("manage.py", "check", "--database", "default")[1]


SET_UP = {
    "a backend that is missing": (
        'AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]',
        "auth_rls.W002",
    ),
    "daphne behind staticfiles": (
        'INSTALLED_APPS = [*(app for app in INSTALLED_APPS if app != "daphne"), "daphne"]',
        "daphne.E001",
    ),
    "no daphne": (
        'INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "daphne"]',
        "realtime.W012",
    ),
    "no application": ("ASGI_APPLICATION = None", "realtime.W011"),
    "no auth_rls": (
        'INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "auth_rls"]',
        "put 'auth_rls' before 'realtime' into INSTALLED_APPS",
    ),
    "a typo in a setting": (
        'REALTIME = {"TAILR": "external"}',
        "Did you mean 'TAILER'?",
    ),
}


@pytest.mark.parametrize("mistake", SET_UP)
def test_a_mistake_of_the_settings_is_told_by_check(project: Project, mistake: str) -> None:
    lines, told = SET_UP[mistake]
    assert told in project.check(f"mistake{list(SET_UP).index(mistake)}", lines)


def database(project: Project, name: str) -> str:
    """Settings with another database of this name."""
    path = project.folder / f"{name}.sqlite3"
    return f'DATABASES["default"]["NAME"] = {str(path)!r}'


def test_a_forgotten_migrate_is_told_by_the_commands(project: Project) -> None:
    settings = project.settings("unmigrated", database(project, "unmigrated"))
    code, said = project.run("manage.py", "tail_wal", "--once", settings)
    assert code != 0 and "Has `manage.py migrate` been run?" in said
    assert "Traceback" not in said


def test_missing_triggers_are_told_by_check_and_by_the_command(project: Project) -> None:
    settings = project.settings("untriggered", database(project, "untriggered"))
    project.run("manage.py", "migrate", settings)
    with contextlib.closing(sqlite3.connect(project.folder / "untriggered.sqlite3")) as link:
        named = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'desk_ticket'"
        for (name,) in link.execute(named).fetchall():
            link.execute(f'DROP TRIGGER "{name}"')
    code, said = project.run("manage.py", "realtime_triggers", "check", settings)
    assert code == 1 and "desk_ticket" in said
    said = project.run("manage.py", "check", "--database", "default", settings)[1]
    assert "realtime.E010" in said and "manage.py migrate" in said


def test_a_model_without_a_policy_and_one_for_holders_that_nobody_is_are_told_by_check(
    project: Project,
) -> None:
    policies = project.folder / "desk" / "policies.py"
    text = policies.read_text()
    try:
        policies.write_text("")
        said = project.run("manage.py", "check", "--database", "default")[1]
        assert "auth_rls.W001" in said
        policies.write_text(text.replace('    audience="authenticated",\n', ""))
        said = project.run("manage.py", "check", "--database", "default")[1]
        assert "auth_rls.W009" in said
    finally:
        policies.write_text(text)


class Running(Server):
    """A server on settings of which the tailer is external and does not run."""

    def __init__(self, project: Project, name: str = "runserver") -> None:
        lines = (
            'REALTIME = {"TAILER": "external", "API_KEYS": {"sb_publishable_web": "anon"}}\n'
            'AUTH_RLS = {"JWT_KEY": "a-key-of-the-project-that-is-long-enough"}'
        )
        super().__init__(project, name, project.settings("external", lines))

    def refusal(self, key: str, origin: str | None = None) -> tuple[int, str]:
        """The status and the error of a refused handshake; to a page the close code and reason."""
        url = f"ws://127.0.0.1:{self.port}/realtime?vsn=2.0.0&apikey={key}"
        try:
            with connect(url, origin=origin) as socket_:  # type: ignore[arg-type]
                socket_.recv(timeout=PATIENCE)
        except InvalidStatus as refused:
            body = json.loads(refused.response.body or b"{}")
            return refused.response.status_code, body["error"]
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, closed.rcvd.reason
        raise AssertionError("it was let in")


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[Running]:
    running = Running(project)
    yield running
    running.close()


def test_a_wrong_api_key_is_told_in_the_answer_to_the_page_and_in_the_log(server: Running) -> None:
    told = "The API key provided is not known"
    assert server.refusal("sb_publishable_wrong") == (401, told)
    page = server.refusal("sb_publishable_wrong", f"http://127.0.0.1:{server.port}")
    assert page == (4401, told)
    wait_for(lambda: f"refused with 401: {told}" in server.log, "the log")


def test_a_token_of_another_key_is_told_in_the_answer_and_in_the_log(server: Running) -> None:
    status, told = server.refusal(token(1, key="another-key-than-that-of-the-project"))
    assert status == 401 and "signature" in told
    wait_for(lambda: told in server.log, "the log")


def test_another_origin_is_told_to_the_page_and_in_the_log(server: Running) -> None:
    assert server.refusal("", "http://other.example") == (4403, "Origin is not allowed")
    wait_for(lambda: "http://other.example" in server.log, "the log")


MODULE = "/static/realtime/client.js"


def test_a_server_without_static_files_is_told_in_its_log(
    project: Project, server: Running
) -> None:
    """The project has daphne as an app, so that no check can speak of it."""
    assert status_of(server, MODULE) == 200
    assert "realtime.W014" not in server.log
    under_uvicorn = Running(project, "uvicorn")
    try:
        assert [status_of(under_uvicorn, MODULE) for _ in range(2)] == [404, 404]
        wait_for(lambda: "serves no static files (realtime.W014)" in under_uvicorn.log, "the log")
        assert under_uvicorn.log.count("realtime.W014") == 1
    finally:
        under_uvicorn.close()


def status_of(server: Running, path: str) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=PATIENCE) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def page(server: Running, browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    opened.go(f"http://127.0.0.1:{server.port}/accounts/login/")
    yield opened
    opened.close()


# Follows a table, and says what the page was told until the first state that lasts.
FOLLOW = """
(async () => {
  const console_ = [];
  const before = console.error;
  console.error = (...words) => console_.push(words.join(" "));
  const { connect } = await import("/static/realtime/client.js");
  const client = connect("/realtime");
  const [status, error] = await new Promise((resolve) =>
    client.channel("mistakes").on("postgres_changes", BINDING, () => {})
      .subscribe((status, error) => {
        if (status !== "joining" && status !== "catching up") resolve([status, error?.message]);
      }));
  client.close();
  console.error = before;
  return { status, error: error ?? "", console: console_.join(" ") };
})()
"""


def told(page: Page, **binding: Any) -> dict[str, str]:
    whole = {"event": "*", "schema": "public", "table": "desk_ticket", **binding}
    answer: dict[str, str] = page.run(FOLLOW.replace("BINDING", json.dumps(whole)))
    return answer


def test_what_the_server_refuses_of_a_binding_is_told_by_status_and_console(page: Page) -> None:
    for binding, words in (
        ({"table": "desk_tickets"}, "Did you mean 'desk_ticket'?"),
        ({"filter": "statos=eq.open"}, "statos"),
        ({"event": "INSERT", "live": True}, 'it needs event "*"'),
    ):
        answer = told(page, **binding)
        assert answer["status"] == "errored", answer
        assert words in answer["error"] and words in answer["console"], answer


def test_that_no_policy_shows_a_row_is_told_in_the_console_with_debug(page: Page) -> None:
    answer = told(page)
    assert answer["status"] == "live"
    assert "No policy shows rows of" in answer["console"], answer


def test_that_nobody_numbers_is_told_in_the_log_by_the_status_and_in_the_console(
    project: Project, server: Running, page: Page
) -> None:
    code = (
        "from django.contrib.auth.models import User\n"
        "from desk.models import Ticket\n"
        "Ticket.objects.create(title='Lamp', owner=User.objects.get(username='ada'))"
    )
    project.run("manage.py", "shell", "--settings=external", "-c", code)
    status, said = project.run("manage.py", "realtime_status", "--settings=external")
    assert status == 1 and "Nobody numbers the log" in said, said
    told(page)  # The server looks for changes that wait once somebody is connected.
    wait_for(lambda: "start manage.py tail_wal" in server.log, "the log", PATIENCE)
    assert "no process numbers them" in told(page)["console"]
