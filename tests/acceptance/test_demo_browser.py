"""The demo as people meet it: a real server, a real browser, two persons side by side."""

from __future__ import annotations

import re

import pytest

from demo.seed import PASSWORD
from tests.acceptance.support.demo_people import OVEN, SOUP, Person, Seating
from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.devtools import Browser, Page

pytestmark = pytest.mark.acceptance


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


def test_a_title_is_edited_while_its_card_moves_and_while_the_answer_to_a_form_is_on_its_way(
    at_board: Seating, demo: DemoServer
) -> None:
    (ben,) = at_board("ben")
    ben.page.run(
        "(() => { const form = document.querySelector('.add');"
        "form.elements.title.value = 'Wash the ladles'; form.requestSubmit(); })()"
    )
    ben.choose(SOUP, "Edit title")
    ben.page.run("document.querySelector('.card-edit').value = 'Taste the soup again'")
    ben.page.wait("document.querySelector('.add').elements.title.value === ''")
    for position, index in ((1e9, -1), (-1e9, 0)):
        demo.sql("UPDATE demo_task SET position = ? WHERE title = ?", position, SOUP)
        ben.page.wait(
            "[...document.querySelectorAll('.column[data-status=todo] .card-title')]"
            f".at({index}).textContent === '{SOUP}'"
        )
    ben.key("Enter")
    ben.sees("Taste the soup again", "todo")


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
