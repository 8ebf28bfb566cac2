"""The demo as people meet it: a real server, a real browser, two persons side by side."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.seed import PASSWORD
from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.devtools import Browser, Page, wait_for

pytestmark = pytest.mark.acceptance


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

    def point(self, target: str, x: float = 0.5, y: float = 0.5) -> None:
        """Moves the mouse over the element that the expression `target` names, or off the board."""
        self.page.run(
            f"(() => {{ const target = {target}, box = target.getBoundingClientRect();"
            "const place = {bubbles: true, pointerType: 'mouse',"
            f"clientX: box.left + {x} * box.width, clientY: box.top + {y} * box.height}};"
            "target.dispatchEvent(new PointerEvent('pointermove', place)); })()"
        )

    def point_nowhere(self) -> None:
        self.page.run(
            "document.querySelector('.columns').dispatchEvent(new PointerEvent('pointerleave'))"
        )

    def sees_pointing(self, whose: str, at: str, again: Callable[[], None] = lambda: None) -> None:
        """Waits until the cursor of `whose` stands on the element that `at` names. `again` moves
        it: what is said before both are in the room of a team is heard by nobody."""

        stands = f"""(() => {{
          const cursor = [...document.querySelectorAll('.cursor:not([hidden], [data-gone])')]
            .find((one) => one.textContent === '{whose}');
          if (!cursor) return false;
          const tip = cursor.getBoundingClientRect(), box = {at}.getBoundingClientRect();
          return tip.left >= box.left && tip.left <= box.right
            && tip.top >= box.top - 1 && tip.top <= box.bottom;
        }})()"""

        def seen() -> Any:
            again()
            return self.page.run(stands)

        wait_for(seen, stands)

    def sees_nobody_pointing(self) -> None:
        self.page.wait("document.querySelectorAll('.cursor').length === 0")

    def finds_here(self, *names: str) -> None:
        """Waits until exactly these people are shown as present."""
        shown = "[...document.querySelectorAll('.here .visually-hidden')].map((e) => e.textContent)"
        self.page.wait(f"JSON.stringify({shown}) === '{json.dumps(names, separators=(',', ':'))}'")

    def types(self, text: str, to: str) -> None:
        self.page.run(
            "(() => { const {team, body} = document.querySelector('.say').elements;"
            f"team.value = [...team.options].find((o) => o.text === '{to}').value;"
            f"body.value = '{text}';"
            "body.dispatchEvent(new InputEvent('input', {bubbles: true})); })()"
        )

    def record_sent(self) -> None:
        """Keeps, from now on, every broadcast that the page sends in `window.sent`."""
        self.page.run(
            "(() => { window.sent = []; const send = WebSocket.prototype.send;"
            "WebSocket.prototype.send = function (data) { send.call(this, data);"
            "const frame = typeof data === 'string' ? JSON.parse(data) : [];"
            "if (frame[3] === 'broadcast') window.sent.push(frame); }; })()"
        )

    def sent(self) -> list[tuple[str, dict[str, Any]]]:
        """The topic and payload of every broadcast sent since."""
        frames = self.page.run("window.sent")
        return [(frame[2].removeprefix("realtime:"), frame[4]["payload"]) for frame in frames]

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
def at_board(demo: DemoServer, browser: Browser) -> Iterator[Seating]:
    """Seats people at the board, each at a page of their own, live, on fresh rows."""
    demo.load()
    seated = []

    def seat(*usernames: str) -> list[Person]:
        people = [Person(browser.new_page(), demo.url) for _ in usernames]
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

# How often the page has read names, which it does whenever all rows came anew.
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
    demo: DemoServer, at_board: Seating
) -> None:
    ben, cleo = at_board("ben", "cleo")
    demo.sql(
        "INSERT INTO demo_membership (user_id, team_id, role) SELECT u.id, t.id, 'member'"
        " FROM auth_user u, demo_team t WHERE u.username = 'cleo' AND t.name = 'Kitchen'"
    )
    cleo.sees(SOUP, "todo")
    cleo.press(SOUP, "right")
    ben.sees(SOUP, "doing")


def test_what_happened_while_the_server_was_away_comes_through_the_stream_once(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.page.wait(f"{READINGS} === 1")
    last_frame = ben.frames()
    demo.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    for place in range(12):
        update = "UPDATE demo_task SET status = 'done', position = ? WHERE title = ?"
        demo.sql(update, place, OVEN)
    demo.sql("DELETE FROM demo_task WHERE title = ?", SOUP)
    ben.record_link_texts()
    demo.start()
    # Written while the page is on its way back, too.
    demo.sql("UPDATE demo_task SET title = 'Find a third oven' WHERE title = ?", OVEN)
    ben.sees("Find a third oven", "done")
    ben.sees(SOUP, "nowhere")
    ben.wait_until_live()
    assert not last_frame
    seqs = ben.frames()
    assert seqs == list(range(seqs[0], seqs[0] - 14, -1))
    assert ben.page.run(READINGS) == 1
    assert "Catching up…" in ben.page.run("window.linkTexts")


def test_a_page_whose_log_is_another_one_by_now_reads_its_rows_again(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.page.wait(f"{READINGS} === 1")
    demo.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    # As after a restored backup.
    demo.sql("UPDATE realtime_head SET epoch = ?", "0" * 32)
    demo.sql("UPDATE demo_task SET status = 'done' WHERE title = ?", OVEN)
    demo.start()
    ben.sees(OVEN, "done")
    ben.wait_until_live()
    ben.page.wait(f"{READINGS} === 2")


def test_what_a_person_may_see_no_more_when_the_page_comes_back_is_gone(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    ben.sees(SOUP, "todo")
    demo.stop()
    ben.page.wait("document.querySelector('.link').dataset.status === 'closed'")
    demo.sql(
        "DELETE FROM demo_membership WHERE user_id = (SELECT id FROM auth_user WHERE username = ?)",
        "ben",
    )
    demo.start()
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


def test_what_a_policy_refuses_is_told_and_nothing_moves(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    demo.sql("UPDATE auth_rls_policy SET enabled = 0 WHERE name LIKE 'Tasks: members change%'")
    ben.press(SOUP, "right")
    told = "No policy lets you change this task (demo.change_task)."
    ben.page.wait(f"document.querySelector('.toast')?.textContent === '{told}'")
    ben.sees(SOUP, "todo")


ADA, BEN, CLEO = "Ada Osei", "Ben Lindqvist", "Cleo Marín"
QUARTET = "Book the string quartet for Sunday"
TYPING = "document.querySelector('.typing').dataset.on === 'true'"


def meet(ada: Person, ben: Person) -> None:
    """Waits until each has found the other: what somebody says who is not here is not shown."""
    ada.finds_here(BEN)
    ben.finds_here(ADA)


def test_people_of_a_team_see_each_other_and_nobody_else(at_board: Seating) -> None:
    ada, ben, cleo = at_board("ada", "ben", "cleo")
    meet(ada, ben)
    cleo.finds_here()
    ben.page.go("about:blank")
    ada.finds_here()


def test_a_person_with_two_pages_is_here_once_and_until_the_last_is_closed(
    at_board: Seating,
) -> None:
    ada, ben, again = at_board("ada", "ben", "ben")
    ada.finds_here(BEN)
    ben.page.go("about:blank")
    again.finds_here(ADA)
    # What is told later comes later: the page that is left was counted by then.
    again.types("Still here", "Kitchen")
    ada.page.wait(TYPING)
    ada.finds_here(BEN)
    again.page.go("about:blank")
    ada.finds_here()


def test_who_joins_a_team_is_in_its_room_and_who_leaves_it_is_out(
    demo: DemoServer, at_board: Seating
) -> None:
    ben, cleo = at_board("ben", "cleo")
    ben.finds_here()
    demo.sql(
        "INSERT INTO demo_membership (user_id, team_id, role) SELECT u.id, t.id, 'member'"
        " FROM auth_user u, demo_team t WHERE u.username = 'cleo' AND t.name = 'Kitchen'"
    )
    ben.finds_here(CLEO)
    cleo.finds_here(BEN)
    cleo.point(cleo.card(SOUP))
    ben.sees_pointing("Cleo", ben.card(SOUP))
    demo.sql(
        "DELETE FROM demo_membership WHERE user_id ="
        " (SELECT id FROM auth_user WHERE username = 'cleo')"
        " AND team_id = (SELECT id FROM demo_team WHERE name = 'Kitchen')"
    )
    ben.finds_here()
    cleo.finds_here()
    ben.sees_nobody_pointing()


def test_whom_no_policy_lets_see_finds_nobody_until_one_does(
    demo: DemoServer, at_board: Seating
) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    switch = "UPDATE auth_rls_policy SET enabled = ? WHERE name LIKE 'Rooms: %'"
    see = switch + " AND name LIKE '% see who %'"
    demo.sql(see, 0)
    ada.finds_here()
    ben.finds_here()
    demo.sql(see, 1)
    meet(ada, ben)
    # And when the rooms are closed altogether.
    demo.sql(switch, 0)
    ada.finds_here()
    ben.finds_here()
    demo.sql(switch, 1)
    meet(ada, ben)


def test_people_are_here_again_after_the_server_was_away(
    demo: DemoServer, at_board: Seating
) -> None:
    ada, ben = at_board("ada", "ben")
    ada.finds_here(BEN)
    demo.stop()
    ada.page.wait("document.querySelector('.here').dataset.stale === 'true'")
    demo.start()
    for person, other in ((ada, BEN), (ben, ADA)):
        person.page.wait("document.querySelector('.here').dataset.stale === 'false'")
        person.finds_here(other)
    places = itertools.cycle((0.3, 0.7))
    ada.sees_pointing("Ben", ada.card(SOUP), again=lambda: ben.point(ben.card(SOUP), next(places)))


def test_a_cursor_is_seen_on_the_card_it_points_at_whatever_the_screen(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    ada.page.size(390, 800, touch=True)
    meet(ada, ben)
    ben.point(ben.card(SOUP))
    ada.sees_pointing("Ben", ada.card(SOUP))
    ben.point(ben.card(OVEN), 0.95, 0.9)
    ada.sees_pointing("Ben", ada.card(OVEN))
    done = "document.querySelector('.column[data-status=done]')"
    ben.point(done, 0.5, 0.98)
    ada.sees_pointing("Ben", done)
    ben.point_nowhere()
    ada.sees_nobody_pointing()


def test_a_cursor_goes_with_its_card(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    ben.point(ben.card(SOUP))
    ada.sees_pointing("Ben", ada.card(SOUP))
    ada.press(SOUP, "right")
    ada.sees(SOUP, "doing")
    ada.sees_pointing("Ben", ada.card(SOUP))


def test_a_cursor_on_a_card_is_told_to_the_team_of_the_card_alone(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    ada.record_sent()
    ada.point(ada.card(SOUP))
    ben.sees_pointing("Ada", ben.card(SOUP))
    ada.point(ada.card(QUARTET))
    # Nobody is in the room of Stage; in that of Kitchen her cursor is gone.
    ben.sees_nobody_pointing()
    task = ada.page.run(f"Number({ada.card(SOUP)}.dataset.id)")
    assert [payload.get("card") for _, payload in ada.sent()] == [task, None]
    assert len({topic for topic, _ in ada.sent()}) == 1


def test_a_mouse_that_moves_fast_is_told_of_now_and_then(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    # A card that fades in is smaller at first.
    ben.page.wait(f"{ben.card(SOUP)}.getAnimations().length === 0")
    ben.record_sent()
    ben.page.run(
        f"(() => {{ const card = {ben.card(SOUP)}, box = card.getBoundingClientRect();"
        "for (let step = 1; step <= 100; step += 1) card.dispatchEvent(new PointerEvent("
        "'pointermove', {bubbles: true, clientX: box.left + step, clientY: box.top + 9})); })()"
    )
    ben.page.wait("window.sent.length > 0")
    ada.sees_pointing("Ben", ada.card(SOUP))
    (told,) = ben.sent()
    where_it_came_to = ben.page.run(f"100 / {ben.card(SOUP)}.getBoundingClientRect().width")
    assert told[1]["x"] == pytest.approx(where_it_came_to, abs=0.01)
    # One that does not move is not told of again.
    ben.point(ben.card(SOUP))
    ben.point(ben.card(SOUP))
    ben.point(ben.card(OVEN))
    ada.sees_pointing("Ben", ada.card(OVEN))
    assert len(ben.sent()) <= 3


def test_for_those_who_want_less_motion_a_cursor_marks_the_card_and_does_not_glide(
    at_board: Seating,
) -> None:
    ada, ben = at_board("ada", "ben")
    ada.page.media(prefers_reduced_motion="reduce")
    meet(ada, ben)
    ben.point(ben.card(SOUP), 0.1)
    ada.sees_pointing("Ben", ada.card(SOUP))
    stands = "document.querySelector('.cursor').style.transform"
    before = ada.page.run(stands)
    moving = "getComputedStyle(document.querySelector('.cursor')).transitionProperty"
    assert ada.page.run(moving) == "opacity"
    ben.record_sent()
    ben.point(ben.card(SOUP), 0.9)
    ben.page.wait("window.sent.length === 1")
    # Told in order: once she sees him type, she has been told where he points.
    ben.types("Tasty", "Kitchen")
    ada.page.wait(TYPING)
    assert ada.page.run(stands) == before


def test_who_is_typing_is_shown_to_those_it_is_meant_for_until_it_is_said(
    at_board: Seating,
) -> None:
    ada, ben, cleo = at_board("ada", "ben", "cleo")
    meet(ada, ben)
    ben.types("Soup is on", "Kitchen")
    ada.page.wait(f"{TYPING} && document.querySelector('.typing').textContent === 'Ben is typing'")
    ben.say("Soup is on", "Kitchen")
    ada.reads("Soup is on")
    ada.page.wait(f"!({TYPING})")
    # Later than what she could have been told of it.
    ben.say("Come all", "Everyone")
    cleo.reads("Come all")
    assert cleo.page.run("document.querySelector('.typing').textContent") == ""


def test_who_stops_typing_without_a_word_is_forgotten(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    ben.types("Hm", "Kitchen")
    ada.page.wait(TYPING)
    # Nothing more is sent: it ends by itself.
    ada.page.wait(f"!({TYPING})")
    ben.types("Hm, well", "Kitchen")
    ada.page.wait(TYPING)
    ben.types("", "Kitchen")
    ada.page.wait(f"!({TYPING})")


def test_what_others_in_a_room_make_up_harms_no_page(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    meet(ada, ben)
    ben.record_sent()
    ben.point(ben.card(SOUP))
    ada.sees_pointing("Ben", ada.card(SOUP))
    ben.page.run(
        """(async () => {
          const { connect } = await import('/static/realtime/client.js');
          const client = connect('/realtime');
          const room = client.channel(window.sent[0][2].slice(9), { private: true, ack: true });
          await new Promise((done) => room.subscribe((status) => status === 'live' && done()));
          // Made up: pages go by the sender that the server names.
          const person = 1;
          const evil = '"] *, [x="<img src=x onerror=window.hit=1>';
          for (const payload of [null, 7, [], {}, { person: 'x' }, { person: -1 },
            { person, card: evil, x: 0, y: 0 }, { person, column: evil, x: 0, y: 0 },
            { person, card: 1, x: 1e9, y: 0 }, { person, column: 'todo', x: null, y: '0' }]) {
            for (const event of ['cursor', 'typing', 'presence', '__proto__', evil]) {
              await room.send(event, payload);
            }
          }
          await room.send('cursor', new Uint8Array([1, 2]));
          await room.send('cursor', { person, column: 'done', x: 0.5, y: 0.5 });
        })()"""
    )
    ada.sees_pointing("Ben", "document.querySelector('.column[data-status=done]')")
    assert ada.page.run("window.hit ?? null") is None
    ben.press(SOUP, "right")
    ada.sees(SOUP, "doing")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_open_drawer_of_frames_covers_no_button_of_the_chat(
    at_board: Seating, width: int, height: int
) -> None:
    (ada,) = at_board("ada")
    ada.page.size(width, height, touch=width < 500)
    ada.page.run("document.querySelector('[data-view=chat]').click()")
    ada.page.run("document.querySelector('.strip').open = true")
    send = "document.querySelector('.say button[type=submit]')"
    ada.page.wait(
        f"(() => {{ const box = {send}.getBoundingClientRect();"
        "return document.elementFromPoint(box.left + box.width / 2, box.bottom - 2)"
        f" === {send}; }})()"
    )


def test_a_superuser_is_told_that_policies_do_not_apply(demo: DemoServer, browser: Browser) -> None:
    page = browser.new_page()
    page.go(f"{demo.url}/sign-in")
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
    demo: DemoServer, browser: Browser, width: int, scheme: str
) -> None:
    page = browser.new_page()
    page.size(width, 740, touch=width < 700)
    page.media(prefers_color_scheme=scheme)
    page.go(f"{demo.url}/sign-in")
    assert page.run("document.documentElement.scrollWidth") <= width
    person = Person(page, demo.url)
    person.sign_in("ada")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.close()


def test_text_stands_out_enough_in_both_colour_schemes(demo: DemoServer, browser: Browser) -> None:
    """WCAG AA: 4.5 to 1 for every colour of text on the surface it stands on."""
    page = browser.new_page()
    for scheme in ("light", "dark"):
        page.media(prefers_color_scheme=scheme)
        page.go(f"{demo.url}/sign-in")
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
