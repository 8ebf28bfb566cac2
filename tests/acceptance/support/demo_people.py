"""People at the demo's board, each in a page of a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.acceptance.support.devtools import Page, wait_for

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


SOUP = "Taste the pumpkin soup, batch two"


OVEN = "Find a second pizza oven"
