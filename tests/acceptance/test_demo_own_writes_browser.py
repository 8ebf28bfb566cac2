"""A card is where its user has put it, at once and from then on, however slow the server is."""

from __future__ import annotations

import pytest

from tests.acceptance.support.demo_people import OVEN, SOUP, Person, Seating
from tests.acceptance.support.demo_server import DemoServer

pytestmark = pytest.mark.acceptance

LATENCY_MS = 500

# What a WebSocket brings, so much later. Before the page's own scripts, which then find this one.
LATE_STREAM = f"""
window.isLate = true;
window.WebSocket = class extends WebSocket {{
  set onmessage(heard) {{
    super.onmessage = heard && ((message) => setTimeout(() => heard(message), {LATENCY_MS}));
  }}
}};
"""

FRAMES_SHOWN = "document.querySelectorAll('.strip tbody tr').length"
ANSWERS = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/move/')).length"


def slow(person: Person, late: str) -> None:
    """Answers, or what the stream brings, or both come LATENCY_MS late from now on."""
    if late in ("stream", "both"):
        person.page.call("Page.enable")
        person.page.call("Page.addScriptToEvaluateOnNewDocument", source=LATE_STREAM)
        person.page.run("location.reload()")
        person.page.wait("window.isLate && document.readyState === 'complete'")
        person.wait_until_live()
    if late in ("answers", "both"):
        person.page.call("Network.enable")
        person.page.call(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=LATENCY_MS,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )


def place(person: Person, title: str) -> str:
    """A JavaScript expression for a card's column and its number in it."""
    card = person.card(title)
    return (
        f"(({card} && {card}.closest('.column').dataset.status + ' '"
        f" + [...{card}.parentElement.children].indexOf({card})) ?? 'nowhere')"
    )


def record_places(person: Person, title: str) -> None:
    """Keeps in `window.places`, from now on, where the card is in each picture that the browser
    paints, once while it stays there."""
    person.page.run(
        f"""(() => {{
          window.places = [];
          const look = () => {{
            const now = {place(person, title)};
            if (window.places.at(-1) !== now) window.places.push(now);
            requestAnimationFrame(look);
          }};
          look();
        }})()"""
    )


def drag(person: Person, title: str, before: str) -> None:
    """Drops the card of a title on the upper half of another, and so before it."""
    person.page.run(
        f"""(() => {{
          const card = {person.card(title)}, next = {person.card(before)};
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


@pytest.mark.parametrize("late", ["answers", "stream", "both"])
def test_a_card_that_is_dragged_never_flickers_back(
    demo: DemoServer, at_board: Seating, late: str
) -> None:
    ada, ben = at_board("ada", "ben")
    slow(ben, late)
    start = ben.page.run(FRAMES_SHOWN)
    wanted = ben.page.run(place(ben, OVEN))
    record_places(ben, SOUP)
    drag(ben, SOUP, before=OVEN)
    ben.page.wait(f"{FRAMES_SHOWN} === {start + 1} && {ANSWERS} === 1")
    ada.sees(SOUP, "doing")
    # What somebody else does later is shown, so nothing of the write lies over it any more.
    demo.sql("UPDATE demo_task SET status = 'done', position = 1e9 WHERE title = ?", SOUP)
    ben.page.wait("window.places.at(-1).startsWith('done ')")
    before, moved, _ = ben.page.run("window.places")
    assert before.startswith("todo ")
    assert moved == wanted


def test_a_card_that_is_dragged_twice_is_where_it_was_put_last(at_board: Seating) -> None:
    ada, ben = at_board("ada", "ben")
    slow(ben, "both")
    start = ben.page.run(FRAMES_SHOWN)
    record_places(ben, SOUP)
    ben.press(SOUP, "right")
    ben.press(SOUP, "right")
    ben.page.wait(f"{FRAMES_SHOWN} === {start + 2} && {ANSWERS} === 2")
    columns = [place.split()[0] for place in ben.page.run("window.places")]
    # Both may be shown in one picture.
    assert columns in (["todo", "done"], ["todo", "doing", "done"])
    ben.sees(SOUP, "done")
    ada.sees(SOUP, "done")


def test_a_card_that_the_server_refuses_to_move_goes_back_once(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    demo.sql("UPDATE auth_rls_policy SET enabled = 0 WHERE name LIKE 'Tasks: members change%'")
    slow(ben, "answers")
    wanted = ben.page.run(place(ben, OVEN))
    record_places(ben, SOUP)
    drag(ben, SOUP, before=OVEN)
    told = "No policy lets you change this task (demo.change_task)."
    ben.page.wait(f"document.querySelector('.toast')?.textContent === '{told}'")
    ben.page.wait("window.places.length === 3")
    before, moved, back = ben.page.run("window.places")
    assert (moved, back) == (wanted, before)


def test_a_deleted_card_is_gone_at_once_and_comes_back_when_the_server_refuses(
    demo: DemoServer, at_board: Seating
) -> None:
    (ben,) = at_board("ben")
    demo.sql("UPDATE auth_rls_policy SET enabled = 0 WHERE name LIKE 'Tasks:%delete%'")
    slow(ben, "answers")
    record_places(ben, SOUP)
    ben.choose(SOUP, "Delete")
    ben.page.wait("document.querySelector('.toast')")
    ben.page.wait("window.places.length === 3")
    before, gone, back = ben.page.run("window.places")
    assert (gone, back) == ("nowhere", before)
