"""The demo as people meet it: a real server, a real browser, two persons side by side."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from demo.seed import PASSWORD
from tests.acceptance.devtools import Browser, Page, find_browser, wait_for

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """The demo on a database and a port of its own; it can be stopped and started again."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings_demo",
            "DJANGO_DEBUG": "1",
            "SQLITE_PATH": str(database),
        }
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.manage("migrate", "--verbosity", "0")
        self.load()

    def manage(self, *arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def load(self) -> None:
        self.manage("load_demo", "--reset", "--verbosity", "0")

    def sql(self, statement: str, *values: object) -> None:
        """Writes as any other program would: past Django, through a connection of its own."""
        with closing(sqlite3.connect(self._database, timeout=20)) as connection, connection:
            connection.execute(statement, values)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "daphne", "--verbosity", "0"),
                *("--bind", "127.0.0.1", "--port", str(self.port)),
                "realtime_project.asgi:application",
            ],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "the server")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("demo") / "demo.sqlite3")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        message = "the demo page is NOT tested: there is no Chromium on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    browser = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


Seating = Callable[..., "list[Person]"]


class Person:
    """Somebody at the board. Tasks are named by their titles."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def sign_in(self, username: str) -> None:
        self.page.go(f"{self.url}/sign-in")
        self.page.run(
            "[...document.querySelectorAll('.account')]"
            f".find((form) => form.username.value === '{username}').requestSubmit()"
        )
        self.wait_until_live()

    def wait_until_live(self) -> None:
        self.page.wait("document.querySelector('.link-text').textContent === 'Live'")

    def card(self, title: str) -> str:
        """A JavaScript expression for the card of this title, undefined where there is none."""
        return (
            "[...document.querySelectorAll('.card[data-id]')]"
            f".find((card) => card.querySelector('.card-title').textContent === '{title}')"
        )

    def column_of(self, title: str) -> str:
        return f"({self.card(title)}?.closest('.column').dataset.status ?? 'nowhere')"

    def sees(self, title: str, column: str) -> None:
        self.page.wait(f"{self.column_of(title)} === '{column}'")

    def press(self, title: str, button: str) -> None:
        self.page.run(f"{self.card(title)}.querySelector('[data-do={button}]').click()")

    def choose(self, title: str, item: str) -> None:
        self.press(title, "more")
        self.page.run(
            "[...document.querySelectorAll('#card-menu button')]"
            f".find((button) => button.textContent === '{item}').click()"
        )

    def titles(self) -> list[str]:
        return self.page.run(
            "[...document.querySelectorAll('.card[data-id] .card-title')].map((t) => t.textContent)"
        )

    def say(self, body: str, to: str) -> None:
        self.page.run(
            "(() => { const form = document.querySelector('.say');"
            "const team = form.elements.team;"
            f"team.value = [...team.options].find((o) => o.text === '{to}').value;"
            f"form.elements.body.value = '{body}'; form.requestSubmit(); }})()"
        )

    def reads(self, body: str) -> None:
        self.page.wait(
            "[...document.querySelectorAll('.message-body')]"
            f".some((element) => element.textContent === '{body}')"
        )

    def frames(self) -> list[int]:
        """The seq of every frame that came, newest first."""
        return self.page.run(
            "[...document.querySelectorAll('.strip tbody tr')]"
            ".map((row) => Number(row.dataset.seq))"
        )

    def record_link_texts(self) -> None:
        """Keeps, from now on, what the page says of its connection in `window.linkTexts`."""
        self.page.run(
            "(() => { window.linkTexts = []; new MutationObserver((changes) =>"
            "window.linkTexts.push(...changes.map((one) => one.target.textContent)))"
            ".observe(document.querySelector('.link-text'), {childList: true}); })()"
        )

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Enter": 13, "Escape": 27}[key]
            self.page.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )


@pytest.fixture
def at_board(server: Server, browser: Browser) -> Iterator[Seating]:
    """Seats people at the board, each at a page of their own, live, on fresh rows."""
    server.load()
    seated = []

    def seat(*usernames: str) -> list[Person]:
        people = [Person(browser.new_page(), server.url) for _ in usernames]
        seated.extend(people)
        for person, username in zip(people, usernames, strict=True):
            person.sign_in(username)
        return people

    yield seat
    for person in seated:
        person.page.close()


SOUP = "Taste the pumpkin soup, batch two"
OVEN = "Find a second pizza oven"
MAP = "Share the map of step-free ways in"

# How often the page has read all its rows.
READINGS = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/rows')).length"


def test_a_card_that_one_person_moves_moves_for_a_team_mate_and_for_nobody_else(
    at_board: Seating,
) -> None:
    ada, ben, cleo = at_board("ada", "ben", "cleo")
    ben.press(SOUP, "right")
    ada.sees(SOUP, "doing")
    ben.sees(SOUP, "doing")
    # Frames come in order: once Cleo has the later one, an earlier one could not be under way.
    ben.say("Soup is on", "Everyone")
    cleo.reads("Soup is on")
    assert SOUP not in cleo.titles()
    tables = cleo.page.run(
        "[...document.querySelectorAll('.strip tbody tr')].map((row) => row.cells[2].textContent)"
    )
    assert tables == ["demo_message"]


def test_the_strip_shows_the_place_in_the_log_and_the_latency(
    at_board: Seating,
) -> None:
    ada, ben = at_board("ada", "ben")
    ben.press(SOUP, "right")
    ada.page.wait("document.querySelectorAll('.strip tbody tr').length === 1")
    seq, change, table, _, latency, stamp = ada.page.run(
        "[...document.querySelector('.strip tbody tr').cells].map((cell) => cell.textContent)"
    )
    assert int(seq) > 0
    assert (change, table) == ("UPDATE", "demo_task")
    assert re.fullmatch(r"\d+ ms", latency)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp)


def test_a_task_that_becomes_public_appears_for_others_and_leaves_with_its_flag(
    at_board: Seating,
) -> None:
    ben, cleo = at_board("ben", "cleo")
    ben.choose(OVEN, "Show to everyone")
    cleo.sees(OVEN, "doing")
    assert cleo.page.run(f"{cleo.card(OVEN)}.querySelector('.card-actions').hidden")
    ben.choose(OVEN, "Show to the team only")
    cleo.sees(OVEN, "nowhere")
    kinds = cleo.page.run(
        "[...document.querySelectorAll('.strip tbody tr')].map((row) => row.cells[1].textContent)"
    )
    assert kinds == ["DELETE", "INSERT"]


def test_a_policy_disabled_in_the_admin_empties_the_boards_of_those_it_let_see(
    at_board: Seating,
) -> None:
    ada, ben, cleo = at_board("ada", "ben", "cleo")
    ben.sees(SOUP, "todo")
    ada.page.go(f"{ada.url}/admin/auth_rls/policy/")
    switch_policy(ada.page, "Tasks: members see those of their teams", on=False)
    ben.sees(SOUP, "nowhere")
    assert sorted(ben.titles()) == sorted(
        ["Publish the running order", "Pin the menu to the notice board", MAP]
    )
    switch_policy(ada.page, "Tasks: everyone signed in sees public ones", on=False)
    ben.page.wait("!document.querySelector('.empty').hidden")
    cleo.page.wait("!document.querySelector('.empty').hidden")
    switch_policy(ada.page, "Tasks: members see those of their teams", on=True)
    ben.sees(SOUP, "todo")


def switch_policy(page: Page, name: str, *, on: bool) -> None:
    """Goes from the list of policies to this one, sets its "enabled", saves, and is back."""
    page.run(
        "[...document.querySelectorAll('#result_list a')]"
        f".find((link) => link.textContent.trim() === '{name}').click()"
    )
    page.wait("document.querySelector('#id_enabled') && document.readyState === 'complete'")
    page.run(f"document.querySelector('#id_enabled').checked = {str(on).lower()}")
    page.run("document.querySelector('[name=_save]').click()")
    page.wait("document.querySelector('.messagelist .success')")


def test_a_person_who_joins_a_team_sees_its_tasks_at_once(
    server: Server, at_board: Seating
) -> None:
    ben, cleo = at_board("ben", "cleo")
    server.sql(
        "INSERT INTO demo_membership (user_id, team_id, role) SELECT u.id, t.id, 'member'"
        " FROM auth_user u, demo_team t WHERE u.username = 'cleo' AND t.name = 'Kitchen'"
    )
    cleo.sees(SOUP, "todo")
    cleo.press(SOUP, "right")
    ben.sees(SOUP, "doing")


def test_what_happened_while_the_server_was_away_comes_through_the_stream_once(
    server: Server, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.page.wait(f"{READINGS} === 1")
    last_frame = ben.frames()
    server.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    for place in range(12):
        update = "UPDATE demo_task SET status = 'done', position = ? WHERE title = ?"
        server.sql(update, place, OVEN)
    server.sql("DELETE FROM demo_task WHERE title = ?", SOUP)
    ben.record_link_texts()
    server.start()
    # Written while the page is on its way back, too.
    server.sql("UPDATE demo_task SET title = 'Find a third oven' WHERE title = ?", OVEN)
    ben.sees("Find a third oven", "done")
    ben.sees(SOUP, "nowhere")
    ben.wait_until_live()
    assert not last_frame
    seqs = ben.frames()
    assert seqs == list(range(seqs[0], seqs[0] - 14, -1))
    assert ben.page.run(READINGS) == 1
    assert "Catching up…" in ben.page.run("window.linkTexts")


def test_a_page_whose_log_is_another_one_by_now_reads_its_rows_again(
    server: Server, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.page.wait(f"{READINGS} === 1")
    server.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    # As after a restored backup.
    server.sql("UPDATE realtime_head SET epoch = ?", "0" * 32)
    server.sql("UPDATE demo_task SET status = 'done' WHERE title = ?", OVEN)
    server.start()
    ben.sees(OVEN, "done")
    ben.wait_until_live()
    assert ben.page.run(READINGS) == 2


def test_what_a_person_may_see_no_more_when_the_page_comes_back_is_gone(
    server: Server, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.sees(SOUP, "todo")
    server.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    server.sql(
        "DELETE FROM demo_membership WHERE user_id = (SELECT id FROM auth_user WHERE username = ?)",
        "ben",
    )
    server.start()
    ben.sees(SOUP, "nowhere")
    ben.wait_until_live()


def test_a_card_moves_by_keyboard_and_keeps_the_focus(
    at_board: Seating,
) -> None:
    ada, ben = at_board("ada", "ben")
    ben.page.run(f"{ben.card(SOUP)}.querySelector('[data-do=right]').focus()")
    ben.key("Enter")
    ada.sees(SOUP, "doing")
    assert ben.page.run("document.activeElement.dataset.do") == "right"
    ben.key("Enter")
    ada.sees(SOUP, "done")
    # There is no column further right: the focus waits on the button beside.
    ben.page.wait("document.activeElement.dataset.do === 'more'")


def test_a_task_is_added_renamed_and_deleted(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    ben.page.run(
        "(() => { const form = document.querySelector('.add');"
        "form.elements.title.value = 'Count the ladles'; form.requestSubmit(); })()"
    )
    ada.sees("Count the ladles", "todo")
    ben.sees("Count the ladles", "todo")
    ben.choose("Count the ladles", "Edit title")
    ben.page.run("document.querySelector('.card-edit').value = 'Count the big ladles'")
    ben.key("Enter")
    ada.sees("Count the big ladles", "todo")
    ada.sees("Count the ladles", "nowhere")
    ben.sees("Count the big ladles", "todo")
    ben.choose("Count the big ladles", "Delete")
    ada.sees("Count the big ladles", "nowhere")


def test_a_card_is_dragged_to_a_place_between_two_others(
    at_board: Seating,
) -> None:
    ada, ben = at_board("ada", "ben")
    ben.page.run(
        f"""(() => {{
          const card = {ben.card(SOUP)}, next = {ben.card(OVEN)};
          const box = next.getBoundingClientRect();
          const dataTransfer = new DataTransfer();
          const fire = (on, type) => on.dispatchEvent(new DragEvent(type, {{
            bubbles: true, cancelable: true, dataTransfer,
            clientX: box.left + 5, clientY: box.top + 5,
          }}));
          fire(card, "dragstart");
          fire(next, "dragover");
          fire(next, "drop");
          fire(card, "dragend");
        }})()"""
    )
    ada.sees(SOUP, "doing")
    titles = ada.titles()
    assert titles.index(SOUP) == titles.index(OVEN) - 1


def test_what_a_policy_refuses_is_told_and_nothing_moves(server: Server, at_board: Seating) -> None:
    (ben,) = at_board("ben")
    server.sql("UPDATE auth_rls_policy SET enabled = 0 WHERE name LIKE 'Tasks: members change%'")
    ben.press(SOUP, "right")
    told = "No policy lets you change this task (demo.change_task)."
    ben.page.wait(f"document.querySelector('.toast')?.textContent === '{told}'")
    ben.sees(SOUP, "todo")


def test_a_superuser_is_told_that_policies_do_not_apply(server: Server, browser: Browser) -> None:
    page = browser.new_page()
    page.go(f"{server.url}/sign-in")
    page.run(
        "(() => { const form = document.querySelector('.other-form');"
        f"form.username.value = 'admin'; form.password.value = '{PASSWORD}';"
        "form.requestSubmit(); })()"
    )
    page.wait("document.querySelector('.notice')?.textContent.includes('superuser')")
    page.wait("document.querySelectorAll('.card[data-id]').length >= 14")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1366])
def test_nothing_sticks_out_sideways(
    server: Server, browser: Browser, width: int, scheme: str
) -> None:
    page = browser.new_page()
    page.size(width, 740, touch=width < 700)
    page.media(prefers_color_scheme=scheme)
    page.go(f"{server.url}/sign-in")
    assert page.run("document.documentElement.scrollWidth") <= width
    person = Person(page, server.url)
    person.sign_in("ada")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.close()


def test_text_stands_out_enough_in_both_colour_schemes(server: Server, browser: Browser) -> None:
    """WCAG AA: 4.5 to 1 for every colour of text on the surface it stands on."""
    page = browser.new_page()
    for scheme in ("light", "dark"):
        page.media(prefers_color_scheme=scheme)
        page.go(f"{server.url}/sign-in")
        worst = page.run(CONTRASTS)
        assert worst and min(worst.values()) >= 4.5, (scheme, worst)
    page.close()


# Colours are read back from a canvas, so that every notation becomes red, green and blue.
CONTRASTS = """(() => {
  const style = getComputedStyle(document.documentElement);
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const luminance = (name) => {
    context.fillStyle = style.getPropertyValue('--' + name);
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((byte) => {
      const c = byte / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [['ink', 'bg'], ['ink', 'surface'], ['ink-soft', 'bg'], ['ink-soft', 'surface'],
    ['ink-soft', 'sunken'], ['accent', 'bg'], ['accent', 'surface'], ['accent-ink', 'accent'],
    ['danger', 'surface'], ['warn-ink', 'warn-bg'], ['bg', 'ink']];
  return Object.fromEntries(pairs.map(([text, ground]) => {
    const [low, high] = [luminance(text), luminance(ground)].sort((a, b) => a - b);
    return [text + ' on ' + ground, (high + 0.05) / (low + 0.05)];
  }));
})()"""
