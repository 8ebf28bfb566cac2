"""Drives a headless Chromium over the DevTools protocol, for the tests of the demo page.

Owns one browser process and talks to it with the WebSocket client that is installed anyway, so
that no browser library is needed. Each `Page` is a browser context of its own: separate cookies,
hence a separate person.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-timer-throttling",
    "--remote-debugging-port=0",
)
PATIENCE = 60.0  # seconds a condition may take on a busy machine


def find_browser() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    return None


class BrowserError(Exception):
    """The browser refused a command, or the page's script threw."""


class Browser:
    """A running browser; `close` ends the process and what it started."""

    def __init__(self, executable: str, profile: Path) -> None:
        """Starts it with a fresh `profile`. Raises TimeoutError when it does not come up."""
        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._open = ExitStack()
        self._socket: ClientConnection | None = None
        self._next_id = 0
        try:
            port_file = profile / "DevToolsActivePort"
            text = wait_for(lambda: port_file.exists() and port_file.read_text(), "the browser")
            port, path = text.split()
            url = f"ws://127.0.0.1:{port}{path}"
            self._socket = self._open.enter_context(connect(url, max_size=None))
        except BaseException:
            self.close()
            raise

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result. Raises BrowserError when it is refused."""
        assert self._socket is not None
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            reply = json.loads(self._socket.recv(timeout=PATIENCE))
            if reply.get("id") != self._next_id:
                continue  # an event: pages are asked, not listened to
            if "error" in reply:
                raise BrowserError(f"{method}: {reply['error']['message']}")
            result: dict[str, Any] = reply["result"]
            return result

    def new_page(self) -> Page:
        """A page with cookies of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Page(self, context, attached["sessionId"])

    def close(self) -> None:
        self._open.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)


class Page:
    """A tab, asked by JavaScript expressions. Every wait is for a condition."""

    def __init__(self, browser: Browser, context: str, session: str) -> None:
        self._browser = browser
        self._context = context
        self._session = session

    def close(self) -> None:
        """Closes the tab and forgets its cookies."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def go(self, url: str) -> None:
        """Opens `url` and returns when the page is there."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState=='complete'")

    def run(self, expression: str) -> Any:
        """The JSON value of `expression`, awaited. Raises BrowserError when it throws."""
        reply = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            raise BrowserError(f"{expression}\n{text}")
        return reply["result"].get("value")

    def wait(self, expression: str) -> None:
        """Waits until `expression` is truthy, as JavaScript has it. A page that is being replaced
        answers nothing yet."""

        def ask() -> bool:
            try:
                return bool(self.run(f"Boolean({expression})"))
            except BrowserError:
                return False

        wait_for(ask, expression)

    def size(self, width: int, height: int, *, touch: bool = False) -> None:
        """Gives the page the size of a device; a `touch` device has no hover."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if touch else 1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)

    def media(self, **features: str) -> None:
        """Media features, such as prefers_color_scheme="dark"."""
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Asks `condition` until it is truthy and returns that. Raises TimeoutError naming `what`."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {patience:g} s: {what}")
        time.sleep(0.02)  # between two looks, not instead of one
