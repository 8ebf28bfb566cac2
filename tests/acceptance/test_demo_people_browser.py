"""The people of the demo's teams to each other: present, pointing and typing, in a real browser."""

from __future__ import annotations

import itertools

import pytest

from tests.acceptance.support.demo_people import OVEN, SOUP, Person, Seating
from tests.acceptance.support.demo_server import DemoServer

pytestmark = pytest.mark.acceptance


QUARTET = "Book the string quartet for Sunday"


ADA, BEN, CLEO = "Ada Osei", "Ben Lindqvist", "Cleo Marín"
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
